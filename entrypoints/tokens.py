"""Add, list and remove the gateway's clients and their tokens."""

from __future__ import annotations

from pathlib import Path

import click
from _command import command, option

from smartgrid_pyfunc.schema import InputError
from smartgrid_pyfunc.serving.settings import default_tokens
from smartgrid_pyfunc.serving.tokens import add_token, read_tokens, remove_tokens


@command()
@option(
    "--action",
    type=click.Choice(["add", "list", "remove", "retire"]),
    default="add",
    help="add a token; list clients; remove a client; retire all tokens of a client but the newest.",
)
@option("--client", default=None, help="Name of the client; letters, digits, dots, hyphens, underscores.")
@option("--tokens", default=None, help="Tokens file; empty: SMARTGRID_TOKENS, else ~/.config/smartgrid/tokens.")
def main(action: str, client: str | None, tokens: str | None) -> None:
    """Change who may call the gateway. A running gateway takes it up within a second, without losing a request.

    A new token is printed once, alone on standard output, and is nowhere else than in the file (mode 0600).
    """
    path = _outside_the_checkout(Path(tokens) if tokens else default_tokens())
    if action == "list":
        click.echo("\n".join(sorted(set(read_tokens(path).values()))))
        return
    if client is None:
        raise InputError("client is required", remedy="name it with --client NAME (-P client=NAME)")
    if action == "add":
        click.echo(add_token(path, client))
        click.echo(f"Added to {path}; send it as the header Authorization: Bearer <token>.", err=True)
    else:
        click.echo(f"Removed {remove_tokens(path, client, but_newest=action == 'retire')} token(s) of {client}.")


def _outside_the_checkout(path: Path) -> Path:
    if path.resolve().is_relative_to(Path(__file__).resolve().parents[1]):
        raise InputError("a tokens file must lie outside the checkout", found=path, remedy="name another with --tokens")
    return path


if __name__ == "__main__":
    main()
