"""`fairway bundle`: whose is this folder, is it the bundle it says it is, and what does that bundle promise?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stream.bundle import BundleDescription, Trust, describe, load
from stream.bundle.sign import sign as sign_folder
from stream.bundle.signature import Signer, make_key_pair, read_private_key
from stream.bundle.trust import trust_of
from stream.settings import load_settings

__all__ = ["keygen", "show", "sign", "verify"]

Folder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
Keys = Annotated[Path | None, typer.Option(help="Folder of trusted public keys; by default that of the settings.")]


def verify(
    path: Folder = Path("models/lite"),
    trusted_keys: Keys = None,
    rehearse: Annotated[bool, typer.Option(help="Also try it, in a process of its own, as a worker does.")] = True,
) -> None:
    """Check a bundle as a worker does: whose it is, that it is whole, that it scores here as it did when packed.

    Exit code 2 and what is wrong with which file where a worker would refuse it. Nothing in it is parsed before its
    signature is known to be by a trusted key.
    """
    bundle = load(path, _trust(trusted_keys))
    signer = "nobody (unsigned_bundles is allow)" if bundle.signer is None else bundle.signer
    typer.echo(
        f"{path} is {bundle.manifest.name} {bundle.manifest.version}, whole and unchanged: {bundle.digest}, "
        f"signed by {signer}"
    )
    if rehearse:
        from stream.scoring.rehearsal import rehearse as play  # noqa: PLC0415 - it imports ONNX Runtime, 0.2 s

        difference = play(bundle)
        typer.echo(f"its golden batch scores here on cpu as it did when packed, to {difference:.2g}")


def sign(
    path: Folder,
    key: Annotated[Path, typer.Option(help="Private key file, as `fairway bundle keygen` makes it.")],
) -> None:
    """Sign a bundle: say with a private key that workers who trust its public half may use it.

    Look at `fairway bundle show` before: a signature is a promise of whoever makes it.
    """
    signer = _signer(key)
    bundle = sign_folder(path, signer)
    typer.echo(f"{path} is signed with {key} ({signer.fingerprint}): {bundle.digest}")


def keygen(
    private: Annotated[Path, typer.Argument(help="Where to write the private key; keep it out of every repository.")],
    public: Annotated[Path, typer.Argument(help="Where to write the public key (NAME.pem), such as models/keys/.")],
    passphrase: Annotated[bool, typer.Option(help="Ask for a passphrase to encrypt the private key with.")] = False,
) -> None:
    """Make a pair of Ed25519 keys, to sign bundles with; nothing that exists is overwritten."""
    secret = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else None
    fingerprint = make_key_pair(private, public, passphrase=secret)
    typer.echo(f"{public} ({fingerprint}) is the public key: put it where workers read trusted_keys.")
    typer.echo(f"{private} is the private key: whoever has it can sign in your name.")


def show(path: Folder = Path("models/lite"), trusted_keys: Keys = None) -> None:
    """Show what a bundle is and how good it was measured to be. In a pipe: one line per fact, tab-separated."""
    description = describe(load(path, _trust(trusted_keys)))
    facts = _facts(description)
    header, rows = _harms(description)
    console = Console()
    if not console.is_terminal:
        for fact in facts:
            typer.echo("\t".join(fact))
        for row in (header, *rows):
            typer.echo("\t".join(row))
        return
    console.print(_table(("", ""), facts, show_header=False))
    console.print(_table(header, rows))
    console.print("Figures are of the test split, human labels; ECE beside that of a perfect model at this n.")


def _trust(keys: Path | None) -> Trust:
    settings, _ = load_settings({"trusted_keys": keys})
    return trust_of(settings)


def _signer(key: Path) -> Signer:
    try:
        return read_private_key(key)
    except TypeError:  # it has a passphrase
        return read_private_key(key, passphrase=typer.prompt("Passphrase", hide_input=True))


def _facts(description: BundleDescription) -> list[tuple[str, str]]:
    return [
        ("bundle", f"{description.name} {description.version}"),
        ("digest", description.digest),
        ("calibration", description.calibration_digest),
        ("signed by", description.signer or "nobody"),
        ("calibrated", f"{description.calibrated_at.isoformat()} on {description.calibrated_on}"),
        ("created", description.created_at.isoformat()),
        ("built by", description.code_version),
        ("size", f"{description.bytes / 1e6:.2f} MB in {description.files} files"),
        ("providers", ", ".join(description.providers)),
        ("roles", ", ".join(description.roles)),
        ("reads", description.reads),
        ("trained on", _training(description)),
    ]


def _training(description: BundleDescription) -> str:
    if not description.training_sources:
        return "what nobody has stated: it was imported"
    return f"{description.training_rows} texts from {description.training_sources} sources"


def _harms(description: BundleDescription) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("harm", "positives", "n", "average precision", "AUROC", "ECE", "ECE if perfect", "to calibrate")
    rows = [
        (
            harm.harm,
            str(harm.positives),
            str(harm.n),
            *map(_figure, (harm.average_precision, harm.auroc, harm.ece, harm.ece_null)),
            f"{harm.calibration_harmful:.0f}",
        )
        for harm in description.harms
    ]
    return header, rows


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(
    header: tuple[str, ...], rows: list[tuple[str, ...]] | list[tuple[str, str]], *, show_header: bool = True
) -> Table:
    table = Table(show_header=show_header, header_style="bold", box=None, pad_edge=False)
    for at, name in enumerate(header):
        table.add_column(name, justify="left" if at == 0 or not show_header else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
