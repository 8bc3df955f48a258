"""The torch version of :mod:`crossrank.architectures.split_bert`: the same weights under the same names.

Importing this module registers it with transformers' Auto classes, so that transformers and sentence-transformers load
and train it like any other cross-encoder, from pairs tokenized in the usual way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

_TINY = 1e-6


class SplitBertConfig(BertConfig):  # type: ignore[misc]
    """The configuration of the BERT body and of the head.

    :param head_layers: Layers of the correction.
    :param head_heads: Attention heads in them.
    :param head_size: Size of each attention head.
    :param head_intermediate: Inner size of their feed-forward part.
    :param special_token_ids: Ids of the tokens that open and close a text.
    :param max_query_length: The most tokens of a query.
    :param max_document_length: The most tokens of a document; ``None`` leaves it to the tokenizer.
    """

    model_type = "split_bert"

    def __init__(
        self,
        head_layers: int = 2,
        head_heads: int = 6,
        head_size: int = 64,
        head_intermediate: int = 384,
        special_token_ids: tuple[int, ...] = (101, 102),
        max_query_length: int = 64,
        max_document_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("num_labels", 1)
        super().__init__(**kwargs)
        self.head_layers = head_layers
        self.head_heads = head_heads
        self.head_size = head_size
        self.head_intermediate = head_intermediate
        self.special_token_ids = list(special_token_ids)
        self.max_query_length = max_query_length
        self.max_document_length = max_document_length

    def cut_pairs_at(self, length: int) -> int:
        """Limit documents to a number of tokens, and return the limit of pairs for the tokenizer.

        Without its own limit, a document would be cut by the tokenizer at a place that depends on the query, and
        :class:`~crossrank.CrossEncoder`, which encodes query and document separately, would read more of it.
        """
        # The opening token of a document belongs to the query in a pair.
        room = self.max_query_length - 1
        self.max_document_length = min(length, self.max_position_embeddings - room)
        return self.max_document_length + room


class KeptStates:
    """A cache of the states of texts after the frozen layers, so that each text is encoded once.

    Each text is encoded alone, so that its states don't depend on the rest of the batch and a resumed run gets the
    same numbers. When the cache is full, other texts are encoded again each time.

    :param layers: How many of the lowest layers are frozen.
    :param most_bytes: Size of the cache; a text of 200 tokens and size 384 takes 0.3 MB.
    """

    def __init__(self, layers: int, most_bytes: int = 2 << 30) -> None:
        self.layers = layers
        self._room = most_bytes
        self._kept: dict[bytes, Tensor] = {}

    def __call__(self, read: Callable[[Tensor], Tensor], ids: Tensor, mask: Tensor) -> Tensor:
        """States ``[B, L, H]``, zero where ``mask`` is.

        :param read: The layers: ids ``[1, L]`` to states.
        """
        rows = []
        for row, length in zip(ids, mask.sum(1).tolist(), strict=True):
            text = row[:length]
            key = text.numpy().tobytes()
            states = self._kept.get(key)
            if states is None:
                with torch.no_grad(), torch.autocast("cpu", enabled=False):
                    states = read(text.unsqueeze(0))[0]
                if states.nbytes <= self._room:
                    self._room -= states.nbytes
                    self._kept[key] = states
            rows.append(states)
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)


class HeadLayer(nn.Module):  # type: ignore[misc]
    """One block of the correction: query tokens ``[B, L, H]`` attend to document states ``[B, M, H]``."""

    def __init__(self, config: SplitBertConfig) -> None:
        super().__init__()
        h, n, d = config.hidden_size, config.head_heads, config.head_size
        self.shape = (n, d)
        self.norm1, self.norm2 = nn.LayerNorm(h), nn.LayerNorm(h)
        self.query = nn.Linear(h, n * d)
        self.key = nn.Parameter(torch.randn(n, d, h) * h**-0.5)
        self.value = nn.Parameter(torch.randn(n, h, d) * h**-0.5)
        self.match_bias = nn.Parameter(torch.zeros(n))
        self.empty = nn.Parameter(torch.zeros(n))
        self.output = nn.Linear(n * d, h)
        self.inner = nn.Linear(h, config.head_intermediate)
        self.outer = nn.Linear(config.head_intermediate, h)
        for last in (self.output, self.outer):
            # The correction starts small, so that training starts near the bi-encoder.
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, document: Tensor, match: Tensor, bias: Tensor) -> Tensor:
        """Query tokens after one block: ``[B, L, H]``."""
        (rows, length, hidden), (n, d) = x.shape, self.shape
        q = self.query(self.norm1(x)).view(rows, length, n, d)
        looking = torch.einsum("blnd,ndh->bnlh", q, self.key.to(q.dtype)) * d**-0.5
        scores = (looking.reshape(rows, n * length, hidden) @ document.transpose(1, 2)).view(rows, n, length, -1)
        scores = scores.float() + self.match_bias.view(1, -1, 1, 1) * match.unsqueeze(1) + bias
        scores = torch.cat([scores, self.empty.view(1, -1, 1, 1).expand(rows, n, length, 1)], -1)
        share = scores.softmax(-1)[..., :-1].to(document.dtype)
        gathered = (share.reshape(rows, n * length, -1) @ document).view(rows, n, length, hidden)
        values = torch.einsum("bnlh,nhd->blnd", gathered, self.value.to(gathered.dtype)).reshape(rows, length, n * d)
        x = x + self.output(values)
        out: Tensor = x + self.outer(functional.gelu(self.inner(self.norm2(x))))
        return out


class SplitHead(nn.Module):  # type: ignore[misc]
    """Turns the states of both texts into a logit."""

    def __init__(self, config: SplitBertConfig) -> None:
        super().__init__()
        h = config.hidden_size
        self.special = tuple(config.special_token_ids)
        self.word_weight = nn.Parameter(torch.ones(config.vocab_size))
        self.gate = nn.Linear(h, 1)
        # exp of them: 20 x cosine + 10 x late interaction + 4 x exact matches, near the best mix without training.
        self.mix = nn.Parameter(torch.tensor([20.0, 10.0, 4.0]).log())
        self.mix_by_query = nn.Linear(h, 3)
        # exp of them: BM25's k1 = 1.2, and its b = 0.75 at an average length of 128 tokens.
        self.saturation = nn.Parameter(torch.tensor([1.2, 0.25, 0.75 / 128]).log())
        self.features = nn.Linear(4, h)
        self.layer = nn.ModuleList([HeadLayer(config) for _ in range(config.head_layers)])
        self.norm = nn.LayerNorm(h)
        self.token_inner, self.token_outer = nn.Linear(h, h), nn.Linear(h, 1)
        self.pair_inner, self.pair_outer = nn.Linear(h, h), nn.Linear(h, 1)
        # Between what matching and what other pairs reach with the mix above, so that 0 divides them from the start.
        self.bias = nn.Parameter(torch.full((1,), -18.0))
        for start_at_zero in (self.gate, self.mix_by_query, self.token_outer, self.pair_outer):
            nn.init.zeros_(start_at_zero.weight)
            nn.init.zeros_(start_at_zero.bias)

    def forward(
        self,
        query: Tensor,
        query_ids: Tensor,
        query_mask: Tensor,
        document: Tensor,
        document_ids: Tensor,
        document_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits ``[B]`` and the three match signals ``[B, 3]`` of pairs.

        :param query: ``[B, L, H]``; with ``query_ids`` and ``query_mask`` ``[B, L]``.
        :param document: ``[B, M, H]``; with ``document_ids`` and ``document_mask`` ``[B, M]``.
        """
        real = query_mask.bool()
        for token in self.special:
            real = real & (query_ids != token)
        inside = document_mask.bool()
        match = (query_ids.unsqueeze(2) == document_ids.unsqueeze(1)) & real.unsqueeze(2) & inside.unsqueeze(1)
        gate = 2 * torch.sigmoid(self.gate(query.float()).squeeze(-1).float())
        weight = functional.relu(self.word_weight[query_ids]) * gate * real
        share = weight / (weight.sum(1, keepdim=True) + _TINY)

        k, base, slope = self.saturation.exp()
        count = match.sum(2).float()
        length = inside.sum(1, keepdim=True).float()
        saturated = count * (1 + k) / (count + k * (base + slope * length))
        repeated = torch.tril(query_ids.unsqueeze(2) == query_ids.unsqueeze(1), diagonal=-1).any(2)
        once = weight * ~repeated
        lexical = (once * saturated).sum(1) / (once.sum(1) + _TINY)

        # Divided afterwards: normalising the document's states would make another copy of the largest array here.
        norm = torch.linalg.vector_norm(document, dim=2, dtype=torch.float32).clamp(min=_TINY).unsqueeze(1)
        likeness = (functional.normalize(query.float(), dim=2).to(document.dtype) @ document.mT).float() / norm
        best = likeness.masked_fill(~inside.unsqueeze(1), -1e4).max(2).values
        late = (share * best).sum(1)

        query_vector, document_vector = _pooled(query, query_mask), _pooled(document, document_mask)
        cosine = (query_vector * document_vector).sum(1)
        signals = torch.stack([cosine, late, lexical], 1)
        mix = (self.mix + torch.tanh(self.mix_by_query(query_vector).float())).exp()
        start = (mix * signals).sum(1)

        features = torch.stack([saturated, best * real, weight, cosine.unsqueeze(1).expand_as(best)], 2)
        x = query + self.features(features.to(query.dtype))
        bias = torch.zeros(document_mask.shape, device=document_mask.device).masked_fill(~inside, -1e9)[:, None, None]
        for layer in self.layer:
            x = layer(x, document, match.float(), bias)
        x = self.norm(x)
        per_token = self.token_outer(functional.gelu(self.token_inner(x))).squeeze(-1).float()
        overall = self.pair_outer(functional.gelu(self.pair_inner(x[:, 0]))).squeeze(-1).float()
        return start + 10 * ((share * per_token).sum(1) + overall) + self.bias, signals


def _pooled(states: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of a text, normalized to length 1: ``[B, H]``."""
    weight = mask.float().unsqueeze(-1)
    return functional.normalize((states.float() * weight).sum(1) / weight.sum(1), dim=1)


class SplitBertForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """The whole model, on pairs tokenized as one sequence with token types, as for every cross-encoder."""

    config_class = SplitBertConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = False
    _supports_sdpa = True

    def __init__(self, config: SplitBertConfig) -> None:
        super().__init__(config)
        self.num_labels = 1
        # Set while the lowest layers, or all of them, are frozen.
        self.kept: KeptStates | None = None
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = SplitHead(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The head sets its own start, and the body's weights are always loaded."""

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States of texts that are each encoded alone: ``[B, L]`` to ``[B, L, H]``.

        A text that occurs more than once in the batch, such as a query with several documents, is encoded once.
        """
        ids, place = torch.unique(ids * mask, dim=0, return_inverse=True)
        mask = torch.zeros_like(ids).index_put((place,), mask.to(ids.dtype))
        if self.kept is None:
            out: Tensor = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        else:
            lower = self.kept.layers
            out = self.upper_layers(self.kept(lambda text: self.lower_layers(text, lower), ids, mask), mask, lower)
        return out[place]

    def lower_layers(self, ids: Tensor, lower: int) -> Tensor:
        """States of a text ``[1, L]`` after the first ``lower`` layers."""
        out: Tensor = self.bert.embeddings(input_ids=ids)
        for layer in self.bert.encoder.layer[:lower]:
            out = _only(layer(out))
        return out

    def upper_layers(self, states: Tensor, mask: Tensor, lower: int) -> Tensor:
        """Continue from there to the states after all layers: ``[B, L, H]``."""
        away = torch.zeros(mask.shape, device=mask.device).masked_fill(mask == 0, -1e9)[:, None, None]
        for layer in self.bert.encoder.layer[lower:]:
            states = _only(layer(states, attention_mask=away.to(states.dtype)))
        return states

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits ``[B, 1]`` of ``[CLS] query [SEP] document [SEP]`` rows ``[B, L]``."""
        second = (token_type_ids == 1) & attention_mask.bool()
        first = (token_type_ids == 0) & attention_mask.bool()
        query_ids, query_mask = _shortened(*_packed(input_ids, first), self.config.max_query_length)
        document_ids, document_mask = _packed(input_ids, second)
        # The document gets its own opening token.
        opening = input_ids[:, :1]
        document_ids = torch.cat([opening, document_ids], 1)
        document_mask = torch.cat([torch.ones_like(opening), document_mask], 1)
        if self.config.max_document_length is not None:
            document_ids, document_mask = _shortened(document_ids, document_mask, self.config.max_document_length)
        logits, _signals = self.head(
            self.states(query_ids, query_mask),
            query_ids,
            query_mask,
            self.states(document_ids, document_mask),
            document_ids,
            document_mask,
        )
        loss = None if labels is None else functional.binary_cross_entropy_with_logits(logits, labels.float().view(-1))
        return SequenceClassifierOutput(loss=loss, logits=logits.unsqueeze(1))


def _only(out: Any) -> Tensor:
    """The states from a layer's output, which is a tuple in transformers before 5."""
    states: Tensor = out[0] if isinstance(out, tuple) else out
    return states


def _packed(ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Move the kept tokens of each row to its start: ``[B, kept]``, with their mask."""
    order = torch.argsort((~keep).to(torch.int8), dim=1, stable=True)[:, : int(keep.sum(1).max())]
    mask = keep.gather(1, order)
    return ids.gather(1, order) * mask, mask.to(ids.dtype)


def _shortened(ids: Tensor, mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Cut texts to at most ``most`` tokens, and keep the closing token."""
    if ids.shape[1] <= most:
        return ids, mask
    closing = ids.gather(1, mask.sum(1, keepdim=True) - 1)
    longer = mask[:, most : most + 1].bool()
    last = torch.where(longer, closing, ids[:, most - 1 : most])
    return torch.cat([ids[:, : most - 1], last], 1), mask[:, :most]


AutoConfig.register("split_bert", SplitBertConfig)
AutoModelForSequenceClassification.register(SplitBertConfig, SplitBertForSequenceClassification)
