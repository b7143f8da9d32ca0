"""GoTrue's routes with which a project's secret key manages users."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from watcher.sandbox.absent import Absent
from watcher.sandbox.auth.bearer import Bearer
from watcher.sandbox.auth.parse import absent, json_body, page_number, text_field, user_id
from watcher.sandbox.auth.users import AuthError, Users


class Admin:
    """The users as an admin sees and changes them."""

    def __init__(self, bearer: Bearer, users: Users) -> None:
        self._bearer = bearer
        self._users = users

    async def list_users(self, request: Request) -> Response:
        """GET /admin/users?page=…&per_page=…."""
        self._bearer.require_admin(request)
        page, per_page = page_number(request, "page", 1), page_number(request, "per_page", 50)
        users, total = await self._users.page(page, per_page)
        last = -(-total // per_page)
        links = {"next": page + 1, "last": last} if last > page else {"last": last}
        shown = [f'<{_page_url(request, number)}>; rel="{name}"' for name, number in links.items()]
        headers = {"x-total-count": str(total), "link": ", ".join(shown)}
        return JSONResponse({"users": users, "aud": "authenticated"}, headers=headers)

    async def create_user(self, request: Request) -> Response:
        """POST /admin/users."""
        self._bearer.require_admin(request)
        body = await json_body(request)
        if body.get("phone"):
            raise absent(Absent.AUTH_PHONE)
        if not body.get("email"):
            message = "Cannot create a user without either an email or phone"
            raise AuthError(400, "validation_failed", message)
        try:
            user = await self._users.create(
                text_field(body, "email"),
                text_field(body, "password"),
                confirmed=bool(body.get("email_confirm")),
                user_metadata=body.get("user_metadata"),
                app_metadata=body.get("app_metadata"),
                user_id=user_id(text_field(body, "id")) if body.get("id") else None,
            )
        except AuthError as error:
            if error.code != "user_already_exists":
                raise
            taken = "A user with this email address has already been registered"
            raise AuthError(422, "email_exists", taken) from error
        return JSONResponse(user)

    async def show_user(self, request: Request) -> Response:
        """GET /admin/users/{id}."""
        self._bearer.require_admin(request)
        user = await self._users.find(user_id(request.path_params["id"]))
        if user is None:
            raise AuthError(404, "user_not_found", "User not found")
        return JSONResponse(user)

    async def delete_user(self, request: Request) -> Response:
        """DELETE /admin/users/{id}: foreign keys decide what is deleted with the user; or `should_soft_delete`."""
        self._bearer.require_admin(request)
        soft = (await json_body(request)).get("should_soft_delete")
        delete = self._users.soft_delete if soft else self._users.delete
        if not await delete(user_id(request.path_params["id"])):
            raise AuthError(404, "user_not_found", "User not found")
        return JSONResponse({})


def _page_url(request: Request, number: int) -> str:
    query = {**request.query_params, "page": str(number)}
    return f"{request.url.path}?{urlencode(sorted(query.items()))}"
