"""VLMo: its passes, heads, index of positions, three losses, gradients, steps; also cut between its layers."""

from collections.abc import Mapping
from typing import Any

import torch

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.content.convert.vlmo import authors_key, from_authors
from rawrec.content.encoders import vlmo
from rawrec.content.encoders.vlmo import Vlmo, VlmoConfig

UNUSED = {"text_embeddings.position_ids", "text_embeddings.position_embeddings.weight"}
"""What the reference's state has and we leave out: the numbers from 0 on, and positions where biases are in use."""


class GoldenVlmo(GoldenModel):
    cfg: VlmoConfig

    def config_of(self, hyper: Mapping[str, Any]) -> VlmoConfig:
        return VlmoConfig(
            width=hyper["embed_dim"],
            depth=hyper["depth"],
            heads=hyper["num_heads"],
            hidden=int(hyper["embed_dim"] * hyper["mlp_ratio"]),
            patch=hyper["patch_size"],
            image_size=hyper["image_size"],
            vl_layer=hyper["vlffn_start_layer_index"],
            vocabulary=hyper["vocab"],
            max_text=hyper["text_length"],
            relative_bias=hyper.get("need_relative_position_embed", True),
            reach=hyper["max_text_len_of_initckpt"],
            image_positions=hyper.get("use_abs_pos_emb", False),
            layer_scale=hyper.get("layer_scale_init_values", 0.1),
        )

    def convert(self, tensors: Tensors) -> Tensors:
        made = from_authors(tensors, self.cfg)
        taken = {authors_key(name) for name in made}
        assert set(tensors) - taken <= UNUSED, "what the reference has and we leave out"
        return made

    def build(self, about: Mapping[str, Any], arrays: Arrays) -> Any:
        self.cfg = self.config_of(about["hyper_parameters"])
        model = Vlmo(self.cfg)
        model.load_state_dict(self.convert(self.parameters(arrays)))
        return model

    def loss(self, model: Any, arrays: Arrays) -> Tensors:
        given, draws = section(arrays, "input"), self.draws(arrays)
        pixels, ids, mask = given["pixel_values"], given["token_ids"], given["attention_mask"].bool()
        hidden = model.mlm_logits(model(pixels, given["token_ids_mlm"], mask))
        mlm = vlmo.mlm_loss(hidden, given["labels_mlm"])
        itc = vlmo.itc_loss(model, model(pixels), model(ids=ids, mask=mask))
        pairs = vlmo.itm_pairs(model, pixels, ids, mask, draws["itm_negative_image"], draws["itm_negative_text"])
        itm = vlmo.itm_loss(pairs)
        parts = {"mlm_scaled": mlm, "itc": itc, "itm": itm, "loss": mlm + itc + itm}
        return parts | {"mlm_logits": hidden, "itm_logits": pairs}

    def check(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        model = self.build(about, arrays)
        self.check_index(arrays)
        self.check_passes(model, section(arrays, "input"), arrays)
        losses = self.loss(model, arrays)
        for name in ("mlm_logits", "itm_logits", "loss"):
            assert_close(losses[name], arrays[f"out/{name}"], name)
        for name in ("mlm_scaled", "itc", "itm"):
            assert_close(losses[name], arrays[f"out/loss/{name}"], name)
        losses["loss"].backward()
        self.check_gradients(model, self.convert(section(arrays, "grad")))
        self.check_steps(about, arrays)

    def check_index(self, arrays: Arrays) -> None:
        if not self.cfg.relative_bias:
            return
        index, texts = vlmo.relative_index(self.cfg), self.cfg.max_text
        for name, part in {"vl": index, "text": index[:texts, :texts], "image": index[texts:, texts:]}.items():
            assert torch.equal(part.long(), torch.from_numpy(arrays[f"graph/{name}_rel_index"]).long()), name

    def check_passes(self, model: Vlmo, given: Tensors, arrays: Arrays) -> None:
        pixels, ids, mask = given["pixel_values"], given["token_ids"], given["attention_mask"].bool()
        assert_close(model.embed_image(pixels), arrays["out/image_embeddings"], "image embeddings")
        assert_close(model.embed_text(ids), arrays["out/text_embeddings"], "text embeddings")
        vectors = {}
        for kind, seen in {"image": model(pixels), "text": model(ids=ids, mask=mask)}.items():
            out = section(arrays, f"out/{kind}")
            assert_close(seen.states, out["tokens"], f"{kind} states")
            assert_close(seen.top[:, 0], out["cls_before_final_norm"], f"{kind} before the norm")
            assert_close(model.pooled(seen.states), out["pooler_on_tokens"], f"{kind} pooled")
            vectors[kind] = model.itc(seen), model.itc_vl(seen)
            for name, vector in zip(("itc_embedding", "itc_vl_embedding"), vectors[kind], strict=True):
                assert_close(vector, out[name], f"{kind} {name}")
        for place, (name, part) in enumerate({"itc": "main", "itc_vl": "vl"}.items()):
            scale = model.logit_vl_scale if place else model.logit_scale
            image, text = vectors["image"][place], vectors["text"][place]
            assert_close(scale.exp() * image @ text.T, arrays[f"out/{name}_i2t_logits"], name)
            assert_close(vlmo.contrast(image, text, scale), arrays[f"out/loss/itc_{part}_part"], f"{part} contrast")

        texts = ids.shape[1]
        out = section(arrays, "out/vl")
        both = model(pixels, ids, mask)
        assert_close(both.features, out["cls"], "fused first token")
        assert_close(model.pooled(both.states), out["pooled"], "fused pooled")
        for cut in range(self.cfg.depth + 1):  # layers called one by one, from what lies between two of them
            x, seen, kind = model.embed(pixels, ids, mask)
            hidden = model.run(x, seen, kind, 0, cut)
            for block in model.blocks[cut:]:
                hidden = block(hidden, seen, kind)
            states = model.norm(hidden)
            assert_close(states[:, :texts], out["text_tokens"], f"fused text, cut at {cut}")
            assert_close(states[:, texts:], out["image_tokens"], f"fused picture, cut at {cut}")


CHECKS = {"vlmo": GoldenVlmo()}
