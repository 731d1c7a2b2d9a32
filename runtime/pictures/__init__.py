"""PICTURES IN A LOG: stored as pixels, losslessly compressed, or as a camera's own packets.

| file           | what it is                                                               |
|----------------|--------------------------------------------------------------------------|
| `stored.py`    | a stored picture: its bytes, and encoding it                             |
| `lossless.py`  | zstd and FFV1: compressed without loss                                   |
| `planar.py`    | a decoded picture: its planes, of which its pixels are made when they are read |
| `asked.py`     | a picture that is decoded when somebody first reads it                    |
| `memory.py`    | memory of pictures, used again for later ones                            |
| `decode.py`    | a stored picture -> the picture, checked                                  |
| `encode.py`    | pixels -> JPEG or H.264, for viewers                                     |
| `still.py`     | a picture file that somebody hands over                                  |
| `squares.py`   | pixels that are not square, made square                                  |
| `video.py`     | decoding and converting video: the same pictures in a run and from its log |
| `convert/`     | decoded pictures -> RGB, in integers                                       |
| `frame_numbers.py` | H.264: whether a picture is missing that others need                  |
| `web_codecs.py` | what browsers call a video's codec                                      |
| `bitstream.py` | packets of H.264, H.265 and AV1: whether a decoder can begin with one    |
"""
