"""Which model, which prompt: recorded frames asked again, and the answers compared.

| file             | what it is                                                              |
|------------------|-------------------------------------------------------------------------|
| `evaluate.py`    | `evaluate`: every way to ask, about every frame; what is known is kept  |
| `chosen.py`      | the answers that are compared, and with what                            |
| `questions.py`   | what is asked, by as many processes as there is room for                |
| `asking.py`      | the worker: recorded pictures, asked about by the graph's own task      |
| `recorded.py`    | what a run asked, about which picture, and what was answered            |
| `variants.py`    | the ways to ask, and what an answer depends on                          |
| `scores.py`      | whether an answer is the right one: texts, and boxes by their overlap   |
| `standings.py`   | who is right how often, and whether that is more than chance            |
| `leaderboard.py` | that as text, Markdown and JSON                                         |
| `answers_page.py`| that as a page, with each answer that is not the right one              |
| `dataset.py`     | pictures and answers as files, to train and to test with                |
| `lerobot.py`     | the same as episodes of LeRobot, with films                             |
| `episodes.py`    | what an episode is made of                                              |
| `episode_stats.py` | statistics of its columns and colours                                 |
"""
