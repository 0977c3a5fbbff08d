import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "workbench.settings")
# A web server goes through the pooler, if DATABASE_URL names one. A blank one says nothing.
os.environ["WORKBENCH_WEB"] = os.environ.get("WORKBENCH_WEB", "").strip() or "1"

application = get_wsgi_application()
