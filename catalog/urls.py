from django.urls import path

from catalog import views

app_name = "catalog"
urlpatterns = [
    path("authors/", views.list_authors, name="list_authors"),
    path("books/<int:author_id>/", views.list_books_by_author, name="list_books_by_author"),
]
