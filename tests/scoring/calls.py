"""Calls of sentence-transformers' CrossEncoder, as people write them, and what becomes of each in crossrank.

In a call, ``name`` is a model's folder, ``model`` a ``CrossEncoder(name)`` and ``pairs`` a list of (query, document).
"""

from __future__ import annotations

from collections.abc import Mapping

# Both libraries give the same values, of the same type and shape.
SAME: Mapping[str, str] = {
    "Making a model": """
CrossEncoder(name).predict(pairs)
CrossEncoder(model_name_or_path=name).predict(pairs)
CrossEncoder(model_name=name).predict(pairs)
CrossEncoder(name, 1).predict(pairs)
CrossEncoder(name, 1, 32).predict(pairs)
CrossEncoder(name, 1, 32, torch.nn.Identity()).predict(pairs)
CrossEncoder(name, 1, 32, None, "cpu").predict(pairs)
CrossEncoder(name, num_labels=1).predict(pairs)
CrossEncoder(name, max_length=32).predict(pairs)
CrossEncoder(name, max_length=None).predict(pairs)
CrossEncoder(name, device="cpu").predict(pairs)
CrossEncoder(name, device=torch.device("cpu")).predict(pairs)
CrossEncoder(name, device=None).predict(pairs)
CrossEncoder(name, cache_folder=folder).predict(pairs)
CrossEncoder(name, cache_dir=folder).predict(pairs)
CrossEncoder(name, revision=None).predict(pairs)
CrossEncoder(name, token=None).predict(pairs)
CrossEncoder(name, token=False).predict(pairs)
CrossEncoder(name, local_files_only=True).predict(pairs)
CrossEncoder(name, trust_remote_code=True).predict(pairs)
CrossEncoder(name, trust_remote_code=False).predict(pairs)
CrossEncoder(name, backend="torch").predict(pairs)
CrossEncoder(name, modules=None).predict(pairs)
CrossEncoder(name, prompts=None).predict(pairs)
CrossEncoder(name, prompts={}).predict(pairs)
CrossEncoder(name, default_prompt_name=None).predict(pairs)
CrossEncoder(name, model_card_data=None).predict(pairs)
CrossEncoder(name, keep_in_fp32_modules=None).predict(pairs)
CrossEncoder(name, keep_in_fp32_modules=[]).predict(pairs)
CrossEncoder(name, classifier_dropout=0.1).predict(pairs)
""",
    "Activations": """
CrossEncoder(name, activation_fn=None).predict(pairs)
CrossEncoder(name, activation_fn=torch.nn.Identity()).predict(pairs)
CrossEncoder(name, activation_fn=torch.nn.Sigmoid()).predict(pairs)
CrossEncoder(name, activation_fn=torch.nn.Tanh()).predict(pairs)
CrossEncoder(name, activation_fn=torch.nn.ReLU()).predict(pairs)
CrossEncoder(name, activation_fn=torch.sigmoid).predict(pairs)
CrossEncoder(name, activation_fn=torch.nn.functional.sigmoid).predict(pairs)
CrossEncoder(name, activation_fn=lambda x: x).predict(pairs)
CrossEncoder(name, activation_fn=lambda x: x.sigmoid()).predict(pairs)
CrossEncoder(name, default_activation_function=torch.nn.Identity()).predict(pairs)
model.activation_fn = torch.nn.Identity(); model.predict(pairs)
""",
    "Dictionaries of arguments": """
CrossEncoder(name, model_kwargs=None).predict(pairs)
CrossEncoder(name, model_kwargs={}).predict(pairs)
CrossEncoder(name, model_kwargs={"torch_dtype": "float32"}).predict(pairs)
CrossEncoder(name, model_kwargs={"torch_dtype": torch.float32}).predict(pairs)
CrossEncoder(name, model_kwargs={"dtype": "auto"}).predict(pairs)
CrossEncoder(name, model_kwargs={"attn_implementation": "sdpa"}).predict(pairs)
CrossEncoder(name, model_kwargs={"attn_implementation": "eager"}).predict(pairs)
CrossEncoder(name, model_kwargs={"low_cpu_mem_usage": True}).predict(pairs)
CrossEncoder(name, model_kwargs={"use_safetensors": True}).predict(pairs)
CrossEncoder(name, model_kwargs={"trust_remote_code": True}).predict(pairs)
CrossEncoder(name, model_kwargs={"device_map": "cpu"}).predict(pairs)
CrossEncoder(name, automodel_args={}).predict(pairs)
CrossEncoder(name, automodel_args={"torch_dtype": torch.float32}).predict(pairs)
CrossEncoder(name, tokenizer_kwargs=None).predict(pairs)
CrossEncoder(name, tokenizer_kwargs={}).predict(pairs)
CrossEncoder(name, tokenizer_kwargs={"model_max_length": 32}).predict(pairs)
CrossEncoder(name, tokenizer_kwargs={"use_fast": True}).predict(pairs)
CrossEncoder(name, tokenizer_args={}).predict(pairs)
CrossEncoder(name, processor_kwargs={}).predict(pairs)
CrossEncoder(name, config_kwargs=None).predict(pairs)
CrossEncoder(name, config_kwargs={}).predict(pairs)
CrossEncoder(name, config_kwargs={"num_labels": 1}).predict(pairs)
CrossEncoder(name, config_kwargs={"classifier_dropout": 0.1}).predict(pairs)
CrossEncoder(name, config_args={}).predict(pairs)
""",
    "What is scored": """
model.predict(pairs)
model.predict(inputs=pairs)
model.predict(sentences=pairs)
model.predict([list(pair) for pair in pairs])
model.predict(tuple(pairs))
model.predict(list(zip(queries, documents)))
model.predict(np.array(pairs))
model.predict(np.array(pairs, dtype=object))
model.predict(pd.DataFrame(pairs).values)
model.predict(pd.DataFrame(pairs).values.tolist())
model.predict(pd.Series(pairs).tolist())
model.predict([(query, document) for document in pd.Series(documents)])
model.predict([(query, document) for document in np.array(documents)])
model.predict(datasets.Dataset.from_dict({"pair": [list(pair) for pair in pairs]})["pair"])
model.predict(pairs[0])
model.predict(list(pairs[0]))
model.predict(np.array(pairs[0]))
model.predict([pairs[0]])
model.predict([])
model.predict([], convert_to_tensor=True)
model.predict([], convert_to_numpy=False)
""",
    "predict": """
model.predict(pairs, None, None, 2)
model.predict(pairs, None, None, 2, False)
model.predict(pairs, None, None, 2, False, torch.nn.Identity())
model.predict(pairs, None, None, 2, False, None, False, True, True)
model.predict(pairs, batch_size=2)
model.predict(pairs, batch_size=np.int64(2))
model.predict(pairs, show_progress_bar=None)
model.predict(pairs, show_progress_bar=False)
model.predict(pairs, show_progress_bar=True)
model.predict(pairs, activation_fn=None)
model.predict(pairs, activation_fn=torch.nn.Identity())
model.predict(pairs, activation_fn=torch.sigmoid)
model.predict(pairs, activation_fn=lambda scores: scores)
model.predict(pairs, activation_fct=torch.nn.Identity())
model.predict(pairs, apply_softmax=None)
model.predict(pairs, apply_softmax=False)
model.predict(pairs, apply_softmax=True)
model.predict(pairs, convert_to_numpy=True)
model.predict(pairs, convert_to_numpy=False)
model.predict(pairs, convert_to_tensor=True)
model.predict(pairs, convert_to_tensor=True, convert_to_numpy=False)
model.predict(pairs[0], convert_to_tensor=True)
model.predict(pairs[0], convert_to_numpy=False)
model.predict(pairs, num_workers=0)
model.predict(pairs, prompt=None)
model.predict(pairs, prompt="")
model.predict(pairs, prompt_name=None)
model.predict(pairs, device=None)
model.predict(pairs, device="cpu")
model.predict(pairs, device=torch.device("cpu"))
model.predict(pairs, pool=None)
model.predict(pairs, chunk_size=2)
model.predict(pairs).tolist()
model.predict(pairs).argsort()[::-1].tolist()
model.predict(pairs)[0].item()
float(model.predict(pairs[0]))
""",
    "rank": """
model.rank(query, documents)
model.rank(query=query, documents=documents)
model.rank(query, tuple(documents))
model.rank(query, np.array(documents))
model.rank(query, np.array(documents), return_documents=True)
model.rank(query, pd.Series(documents))
model.rank(query, datasets.Dataset.from_dict({"text": documents})["text"])
model.rank(query, documents[:1])
model.rank(query, [])
model.rank(query, documents, 2)
model.rank(query, documents, 2, True)
model.rank(query, documents, 2, True, None, None, 2)
model.rank(query, documents, top_k=2)
model.rank(query, documents, top_k=None)
model.rank(query, documents, top_k=100)
model.rank(query, documents, return_documents=True)
model.rank(query, documents, batch_size=2)
model.rank(query, documents, show_progress_bar=True)
model.rank(query, documents, show_progress_bar=False)
model.rank(query, documents, activation_fn=torch.nn.Identity())
model.rank(query, documents, activation_fn=torch.sigmoid)
model.rank(query, documents, activation_fct=torch.nn.Identity())
model.rank(query, documents, apply_softmax=True)
model.rank(query, documents, convert_to_numpy=True)
model.rank(query, documents, convert_to_tensor=True)
model.rank(query, documents, num_workers=0)
model.rank(query, documents, prompt=None)
model.rank(query, documents, prompt_name=None)
model.rank(query, documents, device="cpu")
model.rank(query, documents, pool=None)
model.rank(query, documents, chunk_size=None)
""",
    "Attributes": """
model.max_length
model.max_seq_length
model.max_length = 32; model.predict(pairs)
model.max_seq_length = 32; model.predict(pairs)
model.num_labels
str(model.device)
model.config.num_labels
model.config.hidden_size
model.config.model_type
model.config.max_position_embeddings
model.config.id2label
model.tokenizer.get_vocab()["[CLS]"]
model.to("cpu").predict(pairs)
model.to(torch.device("cpu")).predict(pairs)
model.cpu().predict(pairs)
model.eval().predict(pairs)
""",
    "Saving and copying": """
model.save(folder); CrossEncoder(folder).predict(pairs)
model.save_pretrained(folder); CrossEncoder(folder).predict(pairs)
model.save_pretrained(folder, safe_serialization=True); CrossEncoder(folder).predict(pairs)
model.save_pretrained(folder, create_model_card=False); CrossEncoder(folder).predict(pairs)
copy.copy(model).predict(pairs)
copy.deepcopy(model).predict(pairs)
pickle.loads(pickle.dumps(model)).predict(pairs)
cloudpickle.loads(cloudpickle.dumps(model)).predict(pairs)
joblib.dump(model, folder + "/model"); joblib.load(folder + "/model").predict(pairs)
joblib.Parallel(2, backend="threading")(joblib.delayed(model.predict)([pair]) for pair in pairs)
""",
}

# Both run. sentence-transformers rounds to 16 bits; here the precision is the fastest that keeps the ranking.
ROUNDED = """
CrossEncoder(name, model_kwargs={"dtype": torch.float16}).predict(pairs)
CrossEncoder(name, model_kwargs={"torch_dtype": "float16"}).predict(pairs)
CrossEncoder(name, model_kwargs={"dtype": torch.bfloat16}).predict(pairs)
CrossEncoder(name, automodel_args={"torch_dtype": torch.bfloat16}).predict(pairs)
model.half().predict(pairs)
"""

# These need more packages in sentence-transformers. Here they have no effect: the engine is OpenVINO in any case.
NO_EFFECT = """
CrossEncoder(name, backend="onnx").predict(pairs)
CrossEncoder(name, backend="openvino").predict(pairs)
CrossEncoder(name, backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"}).predict(pairs)
"""

# crossrank refuses: group -> words of the message -> calls. sentence-transformers runs them all.
REFUSED: Mapping[str, Mapping[str, str]] = {
    "Arguments": {
        "revision='main' is for models on the hub, but": """
CrossEncoder(name, revision="main").predict(pairs)
""",
        "Leave it out": """
CrossEncoder(name, model_kwargs={"ignore_mismatched_sizes": True}).predict(pairs)
CrossEncoder(name, tokenizer_kwargs={"padding_side": "left"}).predict(pairs)
CrossEncoder(name, tokenizer_kwargs={"truncation_side": "left"}).predict(pairs)
CrossEncoder(name, config_kwargs={"id2label": {0: "relevant"}}).predict(pairs)
model.rank(query, documents, top_k=0)
""",
        "Save the modules to a folder and name that.": """
CrossEncoder(modules=list(model)).predict(pairs)
""",
        "Put the prompt before the query yourself": """
CrossEncoder(name, prompts={"query": "Find: "}).predict(pairs)
CrossEncoder(name, prompts={"query": "Find: "}, default_prompt_name="query").predict(pairs)
model.predict(pairs, prompt="Find: ")
model.rank(query, documents, prompt="Find: ")
""",
        "one process uses all cores. Leave it out.": """
model.predict(pairs, pool=model.start_multi_process_pool())
""",
        "Make another one: CrossEncoder(..., device=..., precision=...).": """
model.to("cuda")
model.to(torch.float32)
model.predict(pairs, device="cuda")
model.predict(pairs, device=["cuda:0", "cuda:1"])
""",
    },
    "Setting attributes": {
        "it would have no effect": """
model.device = "cuda"
model.config = model.config
model.config.num_labels = 3
model.prompts = {"query": "Find: "}
model.default_prompt_name = None
model.model_card_data = None
model.training = False
model.note = "mine"
""",
    },
    "Reading attributes": {
        "For a torch module, load the folder with sentence-transformers.": """
model.model
model.model.half()
model.model.config
model.transformers_model
model.processor
model.backend
model.modalities
model.training
model.module_kwargs
model.keep_in_fp32_modules
model.parameters()
next(model.parameters()).dtype
sum(parameter.numel() for parameter in model.parameters())
model.named_parameters()
model.state_dict()
model.modules()
model.named_modules()
model.children()
model.requires_grad_(False)
model.zero_grad()
model.compile()
model.preprocess(pairs)
model.smart_batching_collate
model.gradient_checkpointing_enable
model.add_adapter
model.load_adapter
""",
        "Give the constructor precision=": """
model.float()
model.bfloat16()
model.double()
model.dtype
""",
        "Give the constructor device=": """
model.cuda()
""",
        "Put the prompt before the query yourself": """
model.prompts
model.default_prompt_name
""",
        "Read max_length.": """
model.get_max_seq_length()
""",
        "Use tokenizer.encode(query, document).": """
model.tokenize(["a text"])
""",
    },
    "Training and publishing": {
        "Train with crossrank train, or crossrank.training.train().": """
model.fit(train_dataloader=loader)
model.old_fit(train_dataloader=loader)
model.train()
""",
        "Evaluate with crossrank evaluate": """
model.evaluate(evaluator)
""",
        "Save with save_pretrained(folder), then upload it": """
model.push_to_hub("me/model")
model.save_to_hub("me/model")
""",
        "One process uses all cores by itself": """
model.start_multi_process_pool()
""",
    },
}
