"""The families of models, each a small file; `finetune.model.model_folder` lists them."""
