"""Times to the second: to the minute, as Django has it, they tell nothing about an engine."""

DATETIME_FORMAT = "Y-m-d H:i:s"
