from django.urls import path

from workbench.page import ASSETS, views

app_name = "page"
urlpatterns = [
    path("", views.show, name="show"),
    *(path(name, views.asset, {"name": name}, name=name) for name in ASSETS),
]
