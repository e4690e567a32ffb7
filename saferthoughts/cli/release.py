"""Commands of releases: release build, sign and verify, publish, pull, compare, regenerate.

Read and write what `cards/` does: release folders, and repositories on the Hub.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.errors import Incomplete, UserError
from saferthoughts.cli.options import (
    AsJson,
    ReleaseName,
    RunName,
    Settings,
    group,
    note,
    open_run,
    say,
    say_json,
    show,
    takes,
)
from saferthoughts.settings import AnsweringSettings

release_app = group("Accepted rows to a release folder with a card.")


@release_app.command()
def build(
    name: RunName,
    version: Annotated[str | None, typer.Option(help="MAJOR.MINOR.PATCH; refused if too low for the changes.")] = None,
    since: Annotated[
        str | None, typer.Option(help="The release before this one (folder or ORG/NAME@V): version and changelog.")
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="The licence, by the Hub's name for it; kept in run.yaml.")
    ] = None,
    configs: Annotated[
        list[str] | None,
        typer.Option("--with", help="Add preference, unpaired, prompts or steps; repeatable. Or none."),
    ] = None,
    length_ratio: Annotated[
        float | None, typer.Option(help="Largest ratio of words between the sides of a preference pair.")
    ] = None,
    reasoning_key: Annotated[
        str | None, typer.Option(help="Place of the reasoning in conversations: inline, reasoning_content or thinking.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write runs/RUN/release: a config a variant, a card, a changelog, checksums.

    Example: saferthoughts release build mine --since mine-1.0.0 --with preference
    """
    from saferthoughts.cli.release_words import release_folder

    run, before = open_run(name), None if since is None else release_folder(since)
    built = run.release(
        version=version,
        since=before,
        license=license_id,
        configs=[] if configs == ["none"] else configs,
        length_ratio=length_ratio,
        reasoning_key=reasoning_key,
    )
    show(built, as_json)


@release_app.command()
def sign(
    folder: Annotated[
        Path, typer.Argument(help="A release folder, or a student that `train` wrote.", metavar="RELEASE")
    ],
    key: Annotated[Path | None, typer.Option(help="A private key in PEM: P-256, P-384 or P-521.")] = None,
    passphrase_env: Annotated[
        str | None, typer.Option(help="The environment variable that holds the key's passphrase.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="The key's certificate in PEM.")] = None,
    chain: Annotated[
        list[Path] | None, typer.Option(help="Certificates that issued it, the nearest first; repeatable.")
    ] = None,
    sigstore: Annotated[
        bool, typer.Option("--sigstore", help="By Sigstore, with an OpenID token, over the network.")
    ] = False,
    identity_token_env: Annotated[
        str | None, typer.Option(help="The environment variable with that token; the CI job's if not given.")
    ] = None,
) -> None:
    """Sign every file of a release or a student, and how it came to be.

    Example: saferthoughts release sign runs/mine/release --key signing.pem
    """
    from saferthoughts.release import sign as sign_folder

    words = sign_folder(
        folder,
        key=key,
        certificate=certificate,
        chain=chain or (),
        passphrase_env=passphrase_env,
        sigstore=sigstore,
        identity_token_env=identity_token_env,
    )
    say(f"{folder}: {words}")


@release_app.command()
def verify(
    release: ReleaseName,
    identity: Annotated[
        str | None,
        typer.Option(help="Required signer: a public key or root certificates (PEM), or a Sigstore name."),
    ] = None,
    issuer: Annotated[str | None, typer.Option(help="Issuer of the Sigstore identity, as a URL.")] = None,
    at: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The day on which certificates must be valid.")
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option("--release", help="For a student: the release that it was trained on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute again what can be computed of a release, and name what does not match; with --identity, whose it is.

    Example: saferthoughts release verify runs/demo/release
    """
    from saferthoughts.release import verify as verify_release

    found = verify_release(
        release,
        identity=identity,
        issuer=issuer,
        at=at and at.date(),
        trained_on=trained_on,
        progress=note if as_json else say,
    )
    if as_json:
        say_json(found)
    else:
        for fault in found.faults:
            say(fault)
    if found.faults:
        raise Incomplete(f"{len(found.faults)} of {found.checked} things do not match in {release}")
    if as_json:
        return
    if found.signature:
        say(f"{release}: {found.signature}")
    say(f"{release}: {found.checked} things computed again, all match")


@release_app.command()
def describe(
    release: ReleaseName,
    trainer: Annotated[str, typer.Option("--for", help="axolotl or llama-factory.")],
    config: Annotated[
        list[str] | None, typer.Option(help="A config; repeatable. The default one and benign if not given.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write it to this new file; printed if not given.")] = None,
) -> None:
    """Write a release's entry for another trainer: axolotl's datasets, or LLaMA-Factory's dataset_info.json.

    Example: saferthoughts release describe runs/demo/release --for axolotl
    """
    from pipelines.runs import write_text
    from saferthoughts.release import describe as describe_release

    text = describe_release(release, trainer, *(config or ()))
    if output is None:
        typer.echo(text, nl=False)
    elif output.exists():
        raise UserError(f"{output} is there already: leave out --output, and add what is printed to it.")
    else:
        write_text(output, text)
        say(f"{output}: {release} for {trainer}")


def publish(
    what: Annotated[str, typer.Argument(help="A run, or a release folder.", metavar="RUN")],
    repo: Annotated[str, typer.Option(help="ORG/NAME on the Hub; created if missing.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    gated: Annotated[bool, typer.Option("--gated", help="People agree to the card's gating text first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a release on the Hub: one commit and a tag, read back. The token is HF_TOKEN, or hf's login.

    Example: saferthoughts publish mine --repo me/safe-reasoning --private
    """
    from saferthoughts.release import Release

    folder = Settings.runs / what / "release"
    if not folder.exists():
        folder = Path(what)
    if not (folder / "lineage.json").exists():
        raise UserError(
            f"Neither is {Settings.runs / what / 'release'} there nor is {what} a release folder. Build one: "
            f"saferthoughts release build {what}"
        )
    show(Release(folder).publish(repo, private=private, gated=gated, dry_run=dry_run), as_json)


def pull(
    address: Annotated[
        str, typer.Argument(help="A release on the Hub; its newest version if none is given.", metavar="ORG/NAME@V")
    ],
    to: Annotated[Path | None, typer.Option(help="The folder; NAME-VERSION if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a release, checked by commit and by every hash.

    Example: saferthoughts pull me/safe-reasoning@v1.0.0
    """
    from cards.hub.pull import pull as download

    show(download(address, to), as_json)


def compare(
    before: Annotated[str, typer.Argument(help="A release folder, or ORG/NAME@V.", metavar="A")],
    after: Annotated[str, typer.Argument(help="A later one.", metavar="B")],
    as_json: AsJson = False,
) -> None:
    """List the differences between two releases (rows, pattern rates, lengths, balance) and the resulting version.

    Example: saferthoughts compare mine-1.0.0 runs/mine/release
    """
    from saferthoughts.cli.release_words import print_comparison
    from saferthoughts.release import compare as compare_releases

    found = compare_releases(before, after, progress=note if as_json else say)
    if as_json:
        say_json(found.plain())
    else:
        print_comparison(found)


@takes(AnsweringSettings)
def regenerate(
    release: ReleaseName,
    name: Annotated[
        str | None, typer.Argument(help="Name of the new run; RELEASE-TEACHER if not given.", metavar="RUN")
    ] = None,
    judge_teacher: Annotated[
        list[str] | None, typer.Option(help="Teacher entry for a judge, as NAME=ENTRY; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False,
    **who: Any,
) -> None:
    """Start a run like the one behind a release, with another teacher: same prompts, variants, judges and settings.

    Who will be asked, and each text of the release's that is sent, is shown first.

    Example: saferthoughts regenerate me/safe-reasoning@v1.0.0 --teacher deepseek
    """
    from pipelines.settings.overrides import key_and_value
    from saferthoughts.cli.release_words import agreed, new_run_name, release_folder
    from saferthoughts.regeneration import regenerate as start_again

    judges = dict(key_and_value(text, "--judge-teacher", "mine=deepseek") for text in judge_teacher or ())
    name = name or new_run_name(release, who.get("teacher_name") or who.get("teacher") or who.get("model"))
    folder = release_folder(release)
    done = start_again(folder, name, judges=judges, runs=Settings.runs, agree=agreed(yes), **who)
    drawn, config = done.folder.manifest()["stages"]["prompts"]["counts"], done.config
    answering = ", ".join(f"{entry} ({config.teachers[entry].model})" for entry in config.teachers)
    say(
        f"{done.path}: {drawn['harmful']} harmful and {drawn['benign']} benign prompts as in {folder}; teachers "
        f"{answering}\nGo on: saferthoughts run {name}"
    )
