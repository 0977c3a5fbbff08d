from django.conf import settings
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("workbench.page.urls")),
    path("catalog/", include("catalog.urls")),
]
if settings.SERVES_ADMIN:
    urlpatterns += [path("admin/", admin.site.urls)]
