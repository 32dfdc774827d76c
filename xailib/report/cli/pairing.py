"""``xailib pair``: the two halves of each notebook, brought in step."""

import click


@click.command()
@click.option("--keep", type=click.Choice(["py", "ipynb"]), help="Where both were edited: which.")
@click.pass_context
def pair(ctx: click.Context, keep: str | None) -> None:
    """Copy the edited half of each notebook, .py or .ipynb, to the other.

    Where both were edited since they were last alike, nothing is copied, and the exit code is 1:
    --keep says which half is kept.

    \b
    Examples:
      xailib pair
      xailib pair --keep py
    """
    from xailib.project import project_root
    from xailib.report.run.notebook import bring_in_step

    both = bring_in_step(project_root() / "notebooks", keep or "")
    for name in both:
        click.echo(
            f"{name}: .py and .ipynb were both edited since they were last alike; neither was "
            "changed. Keep one: xailib pair --keep py, or --keep ipynb",
            err=True,
        )
    if both:
        ctx.exit(1)
