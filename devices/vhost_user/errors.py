"""What the other side of a vhost-user connection did wrong."""


class ProtocolError(Exception):
    """A message is ill-formed, or not what must come now: the connection cannot go on."""


class Refused(Exception):
    """A well-formed request that cannot be met; nothing was changed.

    With REPLY_ACK its sender is told so.  Without, nothing could tell it, and a sender that goes on
    as if it had succeeded is worse than none: the connection ends.
    """
