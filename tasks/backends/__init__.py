"""What answers for `Inference`: models in this process, and servers that speak OpenAI's HTTP API.

| file          | what it is                                                                |
|---------------|---------------------------------------------------------------------------|
| `backend.py`  | the protocol: load, answer a question about a picture, close              |
| `settings.py` | what a graph file may say of each kind                                    |
| `local.py`    | `embedded` and `transformers`: a checkpoint in this process               |
| `stub.py`     | answers without a model, for a simulation                                 |
| `remembered.py` | a model that a simulation asks the same thing once                      |
| `openai.py`   | `openai`: llama-server, vLLM, Ollama, ... over HTTP; one, or a farm       |
| `client.py`   | one such server: a request, its answer, why there is none                 |
| `farm.py`     | which of several servers is asked                                         |
| `farm_client.py` | asks it, and the next one if it fails                                  |
| `servers_health.py` | how each of them is doing                                           |
| `chat.py`     | what is sent to such a server, and what its errors say                    |
| `reply.py`    | its answer, whole or streamed                                             |
| `backoff.py`  | how long it is left alone after it failed                                 |
| `server.py`   | such a server as a child process: started, watched, ended with the run    |
| `health.py`   | whether each answers, for those who look at the run                       |
| `probe.py`    | asks a server for its models, to see that                                 |
| `chain.py`    | a backend and its fallbacks: who answers now                              |
| `budget.py`   | how often a model may be asked                                            |
| `similar.py`  | frames that look like the last one that was answered                      |
| `make.py`     | settings -> the backend that they describe                                |

A new kind is a class with the protocol's methods, its settings, and a line in `make.py`.
"""
