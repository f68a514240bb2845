"""Grouped tables and time series as tasks: each group of rows (a school, a patient, a sensor) is one task.

table = il.tables.from_frame(frame, task="school", x=["ses", "size"], y="score", shots=5)
table.train, table.validation, table.test  # distributions of tasks
"""

from innerloop.tasks.tables.group_tasks import GroupTasks as GroupTasks
from innerloop.tasks.tables.preparation import Preparation as Preparation
from innerloop.tasks.tables.table import Table as Table
from innerloop.tasks.tables.table import from_frame as from_frame
from innerloop.tasks.tables.windows import windows as windows
