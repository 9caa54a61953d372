"""Drawing code of the lessons: one module per topic, pure functions of plain numbers that return figures."""
