from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("workbench.page.urls")),
    path("admin/", admin.site.urls),
    path("catalog/", include("catalog.urls")),
]
