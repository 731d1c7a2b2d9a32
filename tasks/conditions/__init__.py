"""Conditions of alerts: expressions over what models answered, found and counted.

    said('fire', 'smoke') or count('person', score=0.5) > 2 and (hour >= 22 or hour < 6)

They are written as in Python, without assignments, methods and imports: simpleeval computes them. A
condition is checked whole before the run; `Condition.read` then says whether it holds, and what it read.

| file           | what it is                                                         |
|----------------|--------------------------------------------------------------------|
| `language.py`  | the inputs, functions and names that a condition may read          |
| `checking.py`  | what of an expression is not part of the language, and where       |
| `computing.py` | what an expression comes to, and what it has read                  |
| `condition.py` | `Condition`: an expression that is right                           |
| `template.py`  | `Template`: a text with such expressions in braces                 |
"""
