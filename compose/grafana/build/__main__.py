"""Write the dashboards' JSON."""

from compose.grafana.build.dashboards import FOLDER, built

for name, text in built().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
    print(FOLDER / name)
