"""What other trainers, and other releases, call the options: name -> what to write here."""

from __future__ import annotations

# Of transformers and TRL, earlier.
_EARLIER = {
    "torch_dtype": "Use `dtype`.",
    "overwrite_output_dir": "Leave it out: a new run replaces what is in its folder.",
    "save_safetensors": "Leave it out: weights are always saved as safetensors.",
    "logging_dir": "Leave it out; for TensorBoard set the variable TENSORBOARD_LOGGING_DIR.",
    "per_gpu_train_batch_size": "Use `per_device_train_batch_size`.",
    "per_gpu_eval_batch_size": "Use `per_device_eval_batch_size`.",
    "fp16_opt_level": "Leave it out: apex is not used.",
    "dpo_beta": "Write it into the loss, `loss: dpo(beta=0.1)`.",
    "dpo_loss_type": "Use `loss`, as in `loss: ipo(beta=0.1)`, or TRL's `loss_type`.",
}
# Of the alignment handbook's recipes.
_HANDBOOK = {
    "dataset_mixer": "Name one data set as `dataset_name`; mix several beforehand.",
    "dataset_mixture": "Name one data set as `dataset_name`; mix several beforehand.",
    "dataset_splits": "Use `dataset_train_split` and `dataset_test_split`.",
    "preprocessing_num_workers": "Use `dataset_num_proc`.",
    "use_flash_attention_2": "Use `attn_implementation: flash_attention_2`.",
    "chat_template": "Leave it out: the template that is saved with the tokenizer is used.",
    "auto_insert_empty_system_msg": "Leave it out: rows are trained on as they are written.",
    "model_code_revision": "Use `model_revision`.",
}
_AXOLOTL = {
    "base_model": "Use `model_name_or_path`.",
    "adapter": "Use `use_peft: true`, with `load_in_4bit: true` for QLoRA.",
    "micro_batch_size": "Use `per_device_train_batch_size`.",
    "eval_batch_size": "Use `per_device_eval_batch_size`.",
    "sequence_len": "Use `max_length`.",
    "num_epochs": "Use `num_train_epochs`.",
    "lr_scheduler": "Use `lr_scheduler_type`.",
    "optimizer": "Use `optim`.",
    "rl": "Use `loss`, as in `loss: dpo(beta=0.1)`.",
    "rl_beta": "Write it into the loss, `loss: dpo(beta=0.1)`.",
    "datasets": "Use `dataset_name`, a file or a hub id.",
    "test_datasets": "Use `eval_dataset_name`.",
    "val_set_size": "Save the pairs to evaluate on in a file of their own, and name it as `eval_dataset_name`.",
    "flash_attention": "Use `attn_implementation: flash_attention_2`.",
    "wandb_project": "Use `report_to: wandb`, and the variable WANDB_PROJECT under `env`.",
    "wandb_name": "Use `run_name`.",
    "sample_packing": "Leave it out: padding is never computed.",
    "eval_sample_packing": "Leave it out: padding is never computed.",
    "pad_to_sequence_len": "Leave it out: padding is never computed.",
    "evals_per_epoch": "Use `eval_strategy: steps` and `eval_steps`.",
    "saves_per_epoch": "Use `save_strategy: steps` and `save_steps`.",
    "special_tokens": "Leave it out: the tokenizer that is saved with the model is used.",
    "tokenizer_type": "Leave it out: the tokenizer that is saved with the model is used.",
    "model_type": "Leave it out: the model's own configuration says it.",
    "lora_model_dir": "Give the adapter's folder as `model_name_or_path`: it is trained further.",
    "train_on_inputs": "Leave it out: only completions are scored.",
    "strict": "Leave it out.",
}
_LLAMA_FACTORY = {
    "stage": "Leave it out: this command trains on preferences.",
    "finetuning_type": "Use `use_peft: true` for LoRA; leave it out to train all weights.",
    "lora_rank": "Use `lora_r`.",
    "lora_target": "Use `lora_target_modules`.",
    "dataset": "Use `dataset_name`, a file or a hub id.",
    "dataset_dir": "Write the folder into `dataset_name`.",
    "eval_dataset": "Use `eval_dataset_name`.",
    "template": "Leave it out: the template that is saved with the tokenizer is used.",
    "cutoff_len": "Use `max_length`.",
    "pref_beta": "Write it into the loss, `loss: dpo(beta=0.1)`.",
    "pref_loss": "Use `loss`, as in `loss: dpo(beta=0.1)`; TRL's names of losses are known, too.",
    "pref_ftx": "Write it into the loss, `loss: dpo(beta=0.1) + 1.0*sft(reduction='sequence_mean')`.",
    "val_size": "Save the pairs to evaluate on in a file of their own, and name it as `eval_dataset_name`.",
    "quantization_bit": "Use `load_in_4bit: true` or `load_in_8bit: true`.",
    "flash_attn": "Use `attn_implementation: flash_attention_2`.",
    "plot_loss": "Leave it out; `prefalign report` draws the curves.",
    "overwrite_cache": "Leave it out.",
    "max_samples": "Take the rows beforehand.",
    "adapter_name_or_path": "Give the adapter's folder as `model_name_or_path`: it is trained further.",
}
FOREIGN = {**_LLAMA_FACTORY, **_AXOLOTL, **_HANDBOOK, **_EARLIER}
