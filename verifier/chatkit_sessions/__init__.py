"""Let only live ChatKit sessions of chatkit-mint through to a Python server.

    from chatkit_sessions import SessionMiddleware
    from chatkit_sessions.redis import RedisVerifier

    app = SessionMiddleware(app, RedisVerifier("redis://127.0.0.1:6379/0"), open_paths=["/health"])

The verified session is in the request's state: `request.state.chatkit_session` in Starlette and FastAPI.
"""

from chatkit_sessions.asgi import SessionMiddleware
from chatkit_sessions.session import NotActive, Refused, TooManyRequests, Unavailable, UploadRefused, VerifiedSession
from chatkit_sessions.verifier import Verifier

__all__ = [
    "NotActive",
    "Refused",
    "SessionMiddleware",
    "TooManyRequests",
    "Unavailable",
    "UploadRefused",
    "VerifiedSession",
    "Verifier",
]
