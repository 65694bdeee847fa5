"""Write deploy/grafana/dashboards/*.json: `python -m deploy.grafana.make_dashboards` from the project's root."""

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueTextMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, GridPos

from deploy.grafana.panels import DASHBOARDS, PanelText

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="vlm-prometheus")  # as provisioning/datasources names it
COLUMNS, WIDTH, HEIGHT = 3, 8, 8


def dashboard_json(name: str) -> str:
    """The dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    board = (
        dashboard.Dashboard(title)
        .uid(f"vlm-{name}")
        .tags(["vlm-captioning"])
        .editable()
        .timezone("browser")
        .refresh("30s")
        .time("now-6h", "now")
    )
    for number, text in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        place = GridPos(h=HEIGHT, w=WIDTH, x=column * WIDTH, y=row * HEIGHT)
        board.with_panel(_panel(text).id(number + 1).grid_pos(place))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


def _panel(text: PanelText) -> stat.Panel | timeseries.Panel:
    panel = stat.Panel() if text.now else timeseries.Panel().fill_opacity(10).show_points("never").line_width(1)
    panel.title(text.title).description(text.says).unit(text.unit).datasource(SOURCE)
    if isinstance(panel, stat.Panel):
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).text_mode(
            BigValueTextMode.VALUE_AND_NAME
        )
    else:
        panel.legend(_legend())
    for target in _targets(text):
        panel.with_target(target)
    return panel


def _legend() -> common.VizLegendOptions:
    shown = common.VizLegendOptions().show_legend(True)
    return shown.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)


def _targets(text: PanelText) -> Sequence[prometheus.Dataquery]:
    letters = "ABCDEFGH"
    return [
        prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letters[index]).datasource(SOURCE)
        for index, (expression, legend) in enumerate(text.queries)
    ]


def main() -> None:
    """Write all of them."""
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(dashboard_json(name))


if __name__ == "__main__":
    main()
