"""Routes for existing objects: remove, move, copy, and sign URLs for downloads."""

from dataclasses import replace
from uuid import uuid4

from starlette.responses import Response

from watcher.sandbox.absent import Absent
from watcher.sandbox.storage import errors, tokens
from watcher.sandbox.storage import rows as objects
from watcher.sandbox.storage.body import Field, read
from watcher.sandbox.storage.call import Call
from watcher.sandbox.storage.errors import Json
from watcher.sandbox.storage.upload import metadata_header, permitted

_FROM_TO = {
    "bucketId": Field(str, required=True),
    "sourceKey": Field(str, required=True),
    "destinationKey": Field(str, required=True),
    "destinationBucket": Field(str),
}
_COPY = {
    **_FROM_TO,
    "copyMetadata": Field(bool),
    "metadata": Field(dict, fields={"cacheControl": Field(str), "mimetype": Field(str)}),
}
_EXPIRES = {"expiresIn": Field(int, required=True, minimum=1)}
_UNSEEN = "Either the object does not exist or you do not have access to it"


async def remove(call: Call) -> Response:
    """Delete objects by their keys, and skip those that do not exist or that the caller may not delete."""
    body = await read(call.request, {"prefixes": Field(list, required=True, minimum=1)})
    async with call.transaction() as rows:
        await rows.execute(
            "delete from storage.objects where bucket_id = %s and name = any(%s) returning *",
            [call.bucket, body["prefixes"]],
        )
        deleted = await rows.fetchall()
    call.service.bytes.delete(row["version"] for row in deleted)
    return Json([objects.row_json(row, objects.OBJECT) for row in deleted])


async def remove_one(call: Call) -> Response:
    """Delete one object; the answer tells a missing one from one that the caller may not delete."""
    async with call.admin() as rows:
        row = await objects.find_object(rows, call.bucket, call.key)
    async with call.transaction() as rows:
        await rows.execute("delete from storage.objects where id = %s returning version", [row["id"]])
        if await rows.fetchone() is None:
            raise errors.access_denied()
    call.service.bytes.delete([row["version"]])
    return Json({"message": "Successfully deleted"})


async def move(call: Call) -> Response:
    """Give an object another key: an UPDATE, which policies must allow the caller."""
    body = await read(call.request, _FROM_TO)
    bucket, key = body["bucketId"], body["sourceKey"]
    target_bucket, target = body.get("destinationBucket") or bucket, body["destinationKey"]
    objects.must_be_valid_key(target)
    version = str(uuid4())
    statement = """
        update storage.objects
        set name = %(target)s, bucket_id = %(target_bucket)s, version = %(version)s, owner_id = %(owner)s
        where bucket_id = %(bucket)s and name = %(key)s returning id
    """
    values = {"target": target, "target_bucket": target_bucket, "version": version, "owner": call.owner}
    async with call.transaction() as rows, rows.connection.transaction(force_rollback=True):
        row = await objects.find_object(rows, bucket, key)
        await rows.execute(statement, {**values, "bucket": bucket, "key": key})
        if await rows.fetchone() is None:
            raise errors.no_such_key()
    if (bucket, key) != (target_bucket, target):
        call.service.bytes.link(row["version"], version)
        async with call.admin() as rows:
            await rows.execute(statement, {**values, "bucket": bucket, "key": key})
        call.service.bytes.delete([row["version"]])
    return Json({"message": "Successfully moved"})


async def copy(call: Call) -> Response:
    """Copy an object to another key; the caller must be allowed to read the one and upload the other.

    The metadata are the source's, or with `copyMetadata: false` those of the request, as far as it has any.
    """
    body = await read(call.request, _COPY)
    bucket, key = body.get("destinationBucket") or body["bucketId"], body["destinationKey"]
    objects.must_be_valid_key(key)
    async with call.transaction() as rows:
        source = await objects.find_object(rows, body["bucketId"], body["sourceKey"])
    overwrite = call.request.headers.get("x-upsert") == "true"
    known, of_the_user = source["metadata"], source["user_metadata"]
    if not body.get("copyMetadata", True):
        known, of_the_user = {**known, **body.get("metadata", {})}, metadata_header(call.request)
    new = objects.NewObject(bucket, key, call.owner, known, of_the_user)
    await permitted(call.transaction, new, overwrite=overwrite)
    version = str(uuid4())
    copied = call.service.bytes.link(source["version"], version)
    known = {**known, "lastModified": objects.timestamp(copied)}
    row = await objects.write(call, replace(new, version=version, metadata=known))
    row_json = objects.row_json(row, objects.OBJECT)
    return Json({"Key": f"{bucket}/{key}", "Id": row_json["id"], **row_json})


async def sign(call: Call) -> Response:
    """Sign a URL, relative to Storage's, with which anybody can download this object for some time."""
    body = await read(call.request, {**_EXPIRES, "transform": Field(dict)})
    if body.get("transform"):
        raise errors.absent(Absent.STORAGE_TRANSFORMATIONS)
    async with call.transaction() as rows:
        await objects.find_object(rows, call.bucket, call.key)
    return Json({"signedURL": await _signed(call, call.key, body["expiresIn"])})


async def sign_many(call: Call) -> Response:
    """Sign URLs for several objects of a bucket; one that is not visible to the caller gets an error instead."""
    body = await read(call.request, {**_EXPIRES, "paths": Field(list, required=True, minimum=1)})
    async with call.transaction() as rows:
        await rows.execute(
            "select name from storage.objects where bucket_id = %s and name = any(%s)",
            [call.bucket, body["paths"]],
        )
        visible = {row["name"] for row in await rows.fetchall()}
    return Json(
        [
            {
                "error": None if key in visible else _UNSEEN,
                "path": key,
                "signedURL": await _signed(call, key, body["expiresIn"]) if key in visible else None,
            }
            for key in body["paths"]
        ]
    )


async def _signed(call: Call, key: str, seconds: int) -> str:
    path = f"{call.bucket}/{key}"
    return f"/object/sign/{path}?token={await tokens.sign(call, path, 'download', seconds)}"
