"""Being written."""

from fastapi import APIRouter

router = APIRouter()


async def tidy(gateway) -> None:
    pass
