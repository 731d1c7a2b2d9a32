"""The shipped model: its scenes are fair, its code path works, it answers as its card says."""

import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.embedded.training import backgrounds
from flowrun.tasks.embedded.training import scenes as sc
from flowrun.tasks.embedded.training.demo_video import pick_scenes, truth
from flowrun.tasks.embedded.training.prompts import KINDS, ask, loc_token, loc_tokens
from flowrun.tasks.embedded.training.questions import FREE_KINDS, ask_freely
from flowrun.tasks.embedded.training.wordings import (
    HELD_OUT,
    OFF_TOPIC,
    REFUSAL,
    TRAINED,
    UNKNOWN_WORD,
)
from support.paths import MEDIA

STATED_CAPTION_RATE = 0.95
SCENES = [sc.make_scene(seed) for seed in range(400)]
A_CIRCLE = sc.SceneObject("circle", "orange", 0.2, 0.5, 0.2, 0.0, (0, 0, 0), "on the left")
A_RING = sc.SceneObject("ring", "red", 0.8, 0.5, 0.3, 0.0, (0, 0, 0), "on the right")


@pytest.fixture(scope="module")
def model():
    from flowrun.tasks.embedded.training.evaluate import Model

    return Model(MODEL_DIR)


@pytest.fixture(scope="module")
def processor():
    from flowrun.tasks.embedded.training.network import build_processor

    return build_processor()


class TestScenes:
    def test_one_seed_gives_one_scene_and_the_same_pixels(self):
        for seed in range(20):
            assert sc.make_scene(seed) == sc.make_scene(seed)
            first, again = sc.draw(sc.make_scene(seed)), sc.draw(sc.make_scene(seed))
            assert first.tobytes() == again.tobytes()

    def test_different_seeds_give_different_pictures(self):
        canvas = (80, 60)
        pictures = {sc.draw(sc.make_scene(seed, canvas=canvas)).tobytes() for seed in range(50)}
        assert len(pictures) == 50

    def test_held_out_seeds_are_disjoint_from_training_seeds(self):
        assert sc.HELD_OUT_SEEDS.stop <= sc.TRAIN_SEEDS.start
        assert sc.HELD_OUT_SEEDS.step == sc.TRAIN_SEEDS.step == 1

    def test_training_batches_hold_no_held_out_scene(self, processor, monkeypatch):
        from flowrun.tasks.embedded.training import batches

        seeds = []

        def spy(seed, *, canvas=None, textures=()):
            seeds.append(seed)
            assert not set(textures) & set(backgrounds.HELD_OUT)
            return sc.make_scene(seed, canvas=canvas, textures=textures)

        monkeypatch.setattr(batches, "make_scene", spy)
        encoder = batches.Encoder.of(processor)
        for index in (0, 1):
            batches.training_batch(encoder, seed=0, index=index, size=4)
        assert len(set(seeds)) == 8
        assert all(seed in sc.TRAIN_SEEDS for seed in seeds)
        assert not any(seed in sc.HELD_OUT_SEEDS for seed in seeds)

    def test_objects_do_not_overlap(self):
        for scene in SCENES:
            boxes = [sc.box(scene, item) for item in scene.objects]
            for index, a in enumerate(boxes):
                for b in boxes[index + 1 :]:
                    gap = max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
                    assert gap > 0, scene.seed

    def test_objects_lie_inside_the_frame(self):
        for scene in SCENES:
            for item in scene.objects:
                top, left, bottom, right = sc.box(scene, item)
                assert min(top, left, 1 - bottom, 1 - right) > 0.003, scene.seed

    def test_objects_stand_off_their_background(self):
        for scene in SCENES:
            background = scene.background
            for item in scene.objects:
                for color in (background.first, background.second):
                    assert math.dist(item.rgb, color) > sc.MIN_CONTRAST, scene.seed

    def test_places_are_far_from_any_boundary(self):
        for scene in SCENES:
            centres = [(item.cx, item.cy) for item in scene.objects]
            if len(centres) == 1:
                across, along = sorted(abs(c - 0.5) for c in centres[0])
                assert along <= 0.06 or (along >= 0.2 and across <= 0.12), scene.seed
            if len(centres) == 2:
                near, far = sorted(abs(a - b) for a, b in zip(*centres, strict=True))
                assert far >= 0.43, scene.seed
                assert near <= 0.24, scene.seed
            if len(centres) == 3:
                xs = [x for x, _ in centres]
                assert min(b - a for a, b in itertools.pairwise(xs)) >= 0.27, scene.seed

    def test_every_shape_color_and_count_occurs(self):
        items = [item for scene in SCENES for item in scene.objects]
        assert {item.shape for item in items} == set(sc.SHAPES)
        assert {item.color for item in items} == set(sc.COLORS)
        assert set(Counter(len(scene.objects) for scene in SCENES)) == {0, 1, 2, 3}

    def test_a_caption_names_all_objects_in_reading_order(self):
        scene = replace(SCENES[0], objects=(A_CIRCLE, A_RING))
        assert sc.caption(scene) == "an orange circle on the left and a red ring on the right"

    def test_the_empty_scene_has_its_own_caption(self):
        assert sc.caption(replace(SCENES[0], objects=())) == "an empty scene"


class TestBackgrounds:
    def test_no_held_out_kind_is_drawn_for_training(self):
        assert not set(backgrounds.TRAINED) & set(backgrounds.HELD_OUT)

    def test_one_seed_gives_one_texture(self):
        for kind in (*backgrounds.TRAINED, *backgrounds.HELD_OUT):
            first, again, other = (
                backgrounds.draw_texture(kind, width=40, height=30, seed=seed) for seed in (1, 1, 2)
            )
            assert first.shape == (30, 40, 3)
            assert first.dtype == np.float32
            assert first.tobytes() == again.tobytes()
            assert first.tobytes() != other.tobytes()

    def test_objects_stand_off_the_pixels_around_them(self):
        textured = 0
        for seed in range(12):
            scene = sc.make_scene(seed, canvas=(80, 60), textures=backgrounds.TRAINED)
            behind = scene.background
            if behind.kind != "plain":
                pixels = backgrounds.draw_texture(
                    behind.kind, width=80, height=60, seed=behind.seed
                )
                assert sc.stand_off(pixels, scene.objects), seed
                textured += 1
        assert textured > 6

    def test_an_object_of_its_background_does_not_stand_off(self):
        scene = next(scene for scene in SCENES if scene.objects)
        pixels = np.full((scene.height, scene.width, 3), scene.objects[0].rgb, np.float32)
        assert not sc.stand_off(pixels, scene.objects)


class TestWordings:
    def test_no_held_out_wording_is_one_of_training(self):
        for kind, wordings in HELD_OUT.kinds.items():
            assert not set(wordings) & set(TRAINED.kinds[kind]), kind

    def test_every_kind_is_asked_with_all_fields_filled_in(self):
        rng = np.random.default_rng(0)
        for kind in FREE_KINDS:
            asked = [ask_freely(scene, kind, rng) for scene in SCENES[:60]]
            found = [question for question in asked if question is not None]
            assert len(found) > 5, kind
            assert all(answer and "{" not in prompt for prompt, answer in found), kind

    def test_answers_are_true_of_the_scene(self):
        scene = replace(SCENES[0], objects=(A_CIRCLE, A_RING))
        rng = np.random.default_rng(0)
        expected = {
            "count all": {"2"},
            "colors": {"orange and red"},
            "exists any": {"yes"},
            "empty": {"no"},
            "several": {"yes"},
            "color of size": {"red", "orange"},
            "no such thing": {"no"},
            "off topic": {REFUSAL},
        }
        for kind, answers in expected.items():
            asked = [ask_freely(scene, kind, rng) for _ in range(20)]
            given = {answer for question in asked if question for answer in question[1:]}
            assert given == answers, kind

    def test_where_is_answered_for_what_is_there_and_what_is_not(self):
        scene = replace(SCENES[0], objects=(A_CIRCLE, A_RING))
        rng = np.random.default_rng(1)
        for prompt, answer in (ask_freely(scene, "where", rng) for _ in range(40)):
            if "orange circle" in prompt or "the circle" in prompt:
                assert answer == "on the left"
            elif "red ring" in prompt or "the ring" in prompt:
                assert answer == "on the right"
            else:
                assert answer.startswith("there is no ")


class TestTokenizer:
    def test_every_word_of_training_is_known(self, processor):
        rng = np.random.default_rng(0)
        tokenizer = processor.tokenizer
        for scene in SCENES[:8]:
            for kind in FREE_KINDS:
                question = ask_freely(scene, kind, rng)
                if question is not None and UNKNOWN_WORD not in question[0]:
                    ids = tokenizer(" " + question[0])["input_ids"]
                    assert tokenizer.unk_token_id not in ids, question

    @pytest.mark.long
    def test_every_word_that_is_known_is_one_of_training(self, processor):
        from flowrun.tasks.embedded.training.batches import Encoder

        encoder = Encoder.of(processor)
        rng = np.random.default_rng(0)
        seen = set(encoder.prefix)
        for number in range(30_000):
            scene = SCENES[number % len(SCENES)]
            question = ask_freely(scene, FREE_KINDS[number % len(FREE_KINDS)], rng)
            for prompt, answer in filter(None, (question, ask(scene, KINDS[number % 7], rng))):
                seen |= {*encoder.prompt(prompt), *encoder.answer(answer)}
        unseen = processor.tokenizer.convert_ids_to_tokens(
            sorted(set(range(len(processor.tokenizer))) - seen)
        )
        assert [token for token in unseen if not token.startswith("<")] == []

    def test_all_other_words_are_one_and_the_same(self, processor):
        encode = processor.tokenizer
        human, dog = (encode(f" is there any {word}?")["input_ids"] for word in ("human", "dog"))
        assert human == dog
        assert human[-1] == encode.unk_token_id
        assert len(human) == 4

    def test_marks_and_spaces_change_nothing(self, processor):
        def ids(text):
            return processor.tokenizer(text)["input_ids"]

        plain = ids(" what s in the picture")
        assert ids(" what's  in the picture?!") == plain
        assert ids(" what\u2019s in the “picture”") == plain

    def test_the_shipped_tokenizer_is_the_one_of_training(self, processor, model):
        ours, shipped = processor.tokenizer, model.processor.tokenizer
        assert shipped.get_vocab() == ours.get_vocab()
        assert model.processor.chat_template == processor.chat_template
        assert shipped("Is it, er, <loc0008> ?") == ours("Is it, er, <loc0008> ?")


class TestPrompts:
    def test_every_kind_has_a_question_for_every_scene(self):
        rng = np.random.default_rng(0)
        for scene in SCENES[:50]:
            for kind in KINDS:
                prompt, answer = ask(scene, kind, rng)
                assert prompt
                assert answer

    def test_location_tokens_are_the_middles_of_64_bins(self):
        assert loc_tokens()[:2] == ["<loc0008>", "<loc0024>"]
        assert loc_tokens()[-1] == loc_token(1.0) == "<loc1016>"
        assert len(set(loc_tokens())) == 64

    def test_answers_survive_the_tokenizer(self, processor):
        rng = np.random.default_rng(0)
        for scene in SCENES[:20]:
            for kind in KINDS:
                answer = ask(scene, kind, rng)[1]
                ids = processor.tokenizer(answer)["input_ids"]
                assert processor.decode(ids, skip_special_tokens=True) == answer
            for kind in FREE_KINDS:
                question = ask_freely(scene, kind, rng)
                if question is not None:
                    ids = processor.tokenizer(question[1])["input_ids"]
                    assert processor.decode(ids, skip_special_tokens=True) == question[1]


@pytest.mark.long
class TestTraining:
    def test_pictures_are_resized_as_the_processor_does(self, processor):
        import torch

        from flowrun.tasks.embedded.training import network

        for height, width in ((480, 640), (72, 128), (131, 97), (64, 64)):
            pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
            seen = processor.image_processor(images=[pixels], return_tensors="pt")["pixel_values"]
            ours = network.normalize(torch.from_numpy(network.resize(pixels))[None])
            assert torch.equal(seen[0], ours)

    def test_prompts_are_encoded_as_the_processor_does(self, processor):
        from flowrun.tasks.embedded.training.batches import Encoder

        content = [{"type": "image"}, {"type": "text", "text": "detect red circle"}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(text=text, images=[np.zeros((48, 64, 3), np.uint8)])
        encoder = Encoder.of(processor)
        ours = [*encoder.prefix, *encoder.prompt("detect red circle")]
        assert list(inputs["input_ids"][0]) == ours
        assert encoder.prompt(" Detect red circle.\n") == encoder.prompt("detect red circle")

    def test_a_batch_is_a_function_of_its_index(self, processor):
        from flowrun.tasks.embedded.training.batches import Encoder, training_batch

        first, again, other = (
            training_batch(Encoder.of(processor), seed=0, index=index, size=4)
            for index in (3, 3, 4)
        )
        assert all(value.equal(again[name]) for name, value in first.items())
        assert not first["pixels"].equal(other["pixels"])

    def test_packed_questions_give_the_logits_of_single_ones(self, processor):
        import torch

        from flowrun.tasks.embedded.training import batches, network, train

        network_ = network.build_model(processor, seed=0).eval()
        encoder = batches.Encoder.of(processor)
        batch = batches.held_out_batch(encoder, [7])
        with torch.no_grad():
            packed, _ = train.answer_logits(network_, train.see(network_, batch)[1], batch)
            only_first = batch["segments"][0] <= 1
            ids = batch["ids"][:, only_first]
            pixels = network.normalize(batch["pixels"])[:, None]
            alone = network_(input_ids=ids, pixel_values=pixels).logits[0]
        asked = batch["labels"][0][only_first] != batches.IGNORED
        assert torch.allclose(alone[asked], packed[: int(asked.sum())], atol=1e-4)

    @pytest.mark.slow
    def test_a_run_goes_on_from_its_checkpoint(self, tmp_path):
        from flowrun.tasks.embedded.training import train

        common = ["--batch-size", "2", "--every", "1", "--processes", "1"]
        train.main(["--out", str(tmp_path), "--steps", "1", *common])
        train.main(["--out", str(tmp_path), "--steps", "2", *common])
        import torch

        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
        assert (tmp_path / "model" / "model.safetensors").stat().st_size < 6e6


class TestShippedModel:
    def test_importing_the_package_loads_nothing_heavy(self):
        heavy = {"torch", "transformers", "PIL", "av", "numpy"}
        code = f"import sys, flowrun.tasks.embedded; print({heavy!r} & sys.modules.keys())"
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "set()"

    def test_the_checkpoint_is_small(self):
        assert (MODEL_DIR / "model.safetensors").stat().st_size <= 4e6
        assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 5e6

    def test_it_captions_held_out_scenes_at_the_stated_rate(self, model):
        held_out = [sc.make_scene(seed) for seed in range(96)]
        answers = model.answer([sc.draw(s) for s in held_out], ["cap en"] * len(held_out))
        right = sum(a == sc.caption(s) for a, s in zip(answers, held_out, strict=True))
        assert right / len(held_out) >= STATED_CAPTION_RATE

    def test_it_answers_questions_in_other_words_than_those_of_training(self, model):
        from flowrun.tasks.embedded.training.evaluate import score, wording_cases

        right, total = _total(score(model, wording_cases(HELD_OUT, 2)))
        assert total >= 2 * len(HELD_OUT.kinds)
        assert right / total >= 0.7

    def test_it_says_no_to_a_thing_that_is_no_coloured_shape(self, model):
        frame = sc.draw(SCENES[1])
        asked = [*OFF_TOPIC["no"][:6], *OFF_TOPIC[REFUSAL][:6]]
        answers = model.answer([frame] * len(asked), asked)
        assert answers[:2] == ["no", "no"]  # a human
        right = ["no"] * 6 + [REFUSAL] * 6
        assert sum(a == b for a, b in zip(answers, right, strict=True)) >= 10

    @pytest.mark.long
    def test_it_answers_every_kind_of_question(self, model):
        from flowrun.tasks.embedded.training.evaluate import score, wording_cases

        for wordings in (TRAINED, HELD_OUT):
            counts = score(model, wording_cases(wordings, 8))
            assert all(counts[kind][0] > 1 for kind in counts if kind in wordings.kinds), counts
            right, total = _total(counts)
            assert right / total >= 0.75, counts

    @pytest.mark.long
    def test_it_knows_what_has_nothing_to_do_with_shapes(self, model):
        from flowrun.tasks.embedded.training.evaluate import off_topic_cases, score

        for kind, (right, total) in score(model, off_topic_cases()).items():
            assert right / total >= 0.85, (kind, right, total)

    @pytest.mark.long
    def test_it_captions_before_textures_and_after_troubles(self, model):
        from flowrun.tasks.embedded.training.evaluate import (
            background_cases,
            score,
            size_cases,
            trouble_cases,
        )

        for cases in (background_cases(15), trouble_cases(15), size_cases(10)):
            counts = score(model, cases)
            assert min(right / total for right, total in counts.values()) >= 0.5, counts
            right, total = _total(counts)
            assert right / total >= 0.8, counts

    def test_location_tokens_survive_decoding(self, model):
        scene = next(s for s in SCENES if len(s.objects) == 1)
        answer = model.answer([sc.draw(scene)], ["detect shapes"])[0]
        assert answer.startswith("<loc")
        assert answer.endswith(f"> {scene.objects[0].name}")

    def test_a_newline_after_the_prompt_changes_nothing(self, model):
        frame = sc.draw(SCENES[1])
        assert model.answer([frame], ["cap en\n"]) == model.answer([frame], ["cap en"])

    def test_a_batch_answers_as_single_frames_do(self, model):
        frames = [sc.draw(scene) for scene in SCENES[:4]]
        single = [model.answer([frame], ["cap en"])[0] for frame in frames]
        assert model.answer(frames, ["cap en"] * 4) == single


def _total(counts):
    """Right answers and all answers of a score."""
    return tuple(sum(numbers) for numbers in zip(*counts.values(), strict=True))


class TestDemoVideo:
    def test_its_truth_is_that_of_its_scenes(self):
        assert json.loads((MEDIA / "shapes.json").read_text()) == truth(pick_scenes())

    def test_it_is_a_small_h264_file(self):
        import av

        path = MEDIA / "shapes.mp4"
        assert path.stat().st_size < 400_000
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert (stream.width, stream.height, stream.average_rate) == (640, 480, 10)
            assert stream.frames == 220

    def test_it_is_captioned_right_four_times_out_of_five(self, model):
        import av

        scenes = json.loads((MEDIA / "shapes.json").read_text())["scenes"]
        with av.open(str(MEDIA / "shapes.mp4")) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][10::20]
        answers = model.answer(frames, ["cap en"] * len(frames))
        right = sum(a == s["caption"] for a, s in zip(answers, scenes, strict=True))
        assert right / len(scenes) >= 0.8
