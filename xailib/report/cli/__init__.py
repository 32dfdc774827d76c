"""The ``xailib`` command. What a command needs is imported when it runs, so help is quick."""

from typing import Any

import click

from xailib import __version__
from xailib.errors import InputError, XailibError
from xailib.report.cli.checking import check
from xailib.report.cli.cleaning import clean, results
from xailib.report.cli.fetching import fetch
from xailib.report.cli.listings import images, models
from xailib.report.cli.pairing import pair
from xailib.report.cli.running import report, run


class _Main(click.Group):
    """Turns our errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except XailibError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2 if isinstance(error, InputError) else 1)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Explain image classifiers, and build the report.

    \b
    Examples:
      xailib report                          run what is missing, build the site
      xailib run embedded --only 2_lime -p images=my.jpg
      xailib models resnet                   networks whose names have "resnet"
      xailib images my-photographs/          which of them can be used
      xailib fetch --profile replication     all that a profile needs
      xailib check                           what is missing here
      xailib results                         finished runs, with their parameters
      xailib clean                           what earlier parameters left in results
      xailib pair                            the .py and .ipynb of each notebook in step

    \b
    Exit codes: 0 all is well; 1 something failed or is unavailable, as reported above;
    2 a wrong word or value.

    \b
    Environment: XAILIB_MIRROR names a folder to look in before the network (HOST/PATH of the
    address, or the file's name). CI, or an output that is no terminal, means no progress bars.
    """


for command in (run, report, models, images, fetch, check, results, clean, pair):
    main.add_command(command)
