use crate::{Config, SettingsError};

impl Config {
    /// Checks what types alone do not say.
    pub(crate) fn validate(&self, origin: &str) -> Result<(), SettingsError> {
        let wrong = |key: &str, problem: String| {
            Err(SettingsError::Value { origin: origin.to_owned(), key: key.to_owned(), problem })
        };
        match self.backend.as_str() {
            "jax" | "tpu" => {}
            "hf" | "torch" | "pytorch" => {
                let problem = format!("{:?} is the reference's torch backend; use jax", self.backend);
                return wrong("backend", problem);
            }
            other => return wrong("backend", format!("{other:?} is unknown; use jax or tpu")),
        }
        let dtypes = [
            ("jax.param_dtype", &self.jax.param_dtype),
            ("jax.compute_dtype", &self.jax.compute_dtype),
            ("train.moments_dtype", &self.train.moments_dtype),
        ];
        for (key, dtype) in dtypes {
            if !["float32", "f32", "bfloat16", "bf16", "float16", "f16"].contains(&dtype.as_str()) {
                return wrong(key, format!("{dtype:?} is not a dtype; use float32, bfloat16 or float16"));
            }
        }
        match self.train.optimizer.as_str() {
            "adamw" | "adam" | "lion" => {}
            other => return wrong("train.optimizer", format!("{other:?} is not supported; use adamw or lion")),
        }
        let sizes = [
            ("data.max_len", self.data.max_len),
            ("train.per_device_train_batch_size", self.train.per_device_train_batch_size),
            ("train.per_device_eval_batch_size", self.train.per_device_eval_batch_size),
            ("train.gradient_accumulation_steps", self.train.gradient_accumulation_steps),
            ("eval.batch_size", self.eval.batch_size),
            ("eval.num_beams", self.eval.num_beams),
            ("runtime.devices_per_host", self.runtime.devices_per_host.unwrap_or(1)),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return wrong(key, "0 is too small; use 1 or more".into());
        }
        let train = &self.train;
        let rates = [
            ("train.learning_rate", train.learning_rate),
            ("train.weight_decay", train.weight_decay),
            ("train.max_grad_norm", train.max_grad_norm),
            ("train.num_train_epochs", train.num_train_epochs),
        ];
        if let Some((key, rate)) = rates.iter().find(|(_, rate)| !rate.is_finite() || *rate < 0.0) {
            return wrong(key, format!("{rate} is not a number of at least 0"));
        }
        if train.max_steps <= 0 && train.num_train_epochs == 0.0 {
            return wrong("train.num_train_epochs", "0 epochs and no train.max_steps: nothing to train".into());
        }
        for (key, list) in [("eval.topk", &self.eval.topk), ("eval.length_buckets", &self.eval.length_buckets)] {
            if list.is_empty() || list.contains(&0) {
                return wrong(key, format!("{list:?} is not a list of sizes of at least 1"));
            }
        }
        if !self.eval.constrained {
            return wrong("eval.constrained", "only the search among existing SIDs (true) is implemented".into());
        }
        if train.freeze_llm {
            return wrong("train.freeze_LLM", "training only the new rows is not implemented; use false".into());
        }
        let tasks = &self.tasks;
        let any = [
            tasks.sid_next_item,
            tasks.sid_item_alignment,
            tasks.fusion_seq_rec,
            tasks.title_history_next_title,
            tasks.title_history_next_sid,
        ];
        if !any.contains(&true) {
            return wrong("tasks", "No training tasks enabled under cfg.tasks.*; set at least one to true".into());
        }
        Ok(())
    }

    /// Settings that are accepted and do nothing here, one line each.
    pub fn notes(&self) -> Vec<String> {
        let default = Config::default();
        let mut notes = Vec::new();
        let mut note = |differs: bool, text: &str| {
            if differs {
                notes.push(text.to_owned());
            }
        };
        note(self.jax.param_dtype != default.jax.param_dtype, "jax.param_dtype: master weights are float32 always");
        note(self.train.bf16 || self.train.fp16, "train.bf16, train.fp16: jax.compute_dtype decides");
        note(self.train.group_by_length, "train.group_by_length: batches are not grouped by length");
        note(self.eval.length_penalty != 0.0, "eval.length_penalty: all candidates have the same length");
        note(
            self.wandb.mode == "online",
            "wandb.mode: nothing is sent while training; import metrics.jsonl afterwards",
        );
        notes
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn values_that_cannot_work_are_refused_by_key() {
        for (setting, key) in [
            ("backend=hf", "backend"),
            ("jax.compute_dtype=int8", "jax.compute_dtype"),
            ("train.optimizer=sgd", "train.optimizer"),
            ("data.max_len=0", "data.max_len"),
            ("train.learning_rate=-1", "train.learning_rate"),
            ("eval.topk=[]", "eval.topk"),
            ("eval.constrained=false", "eval.constrained"),
            ("train.freeze_LLM=true", "train.freeze_LLM"),
            ("runtime.devices_per_host=0", "runtime.devices_per_host"),
        ] {
            let error = Config::parse("", "c.yaml", &[setting.to_owned()], &|_| None).unwrap_err().to_string();
            assert!(error.contains(&format!("{key}: ")), "{error}");
        }
        let no_task = "tasks: {sid_next_item: false, sid_item_alignment: false, fusion_seq_rec: false}";
        assert!(Config::parse(no_task, "c.yaml", &[], &|_| None)
            .unwrap_err()
            .to_string()
            .contains("No training tasks"));
    }

    #[test]
    fn what_does_nothing_is_told() {
        let config = Config::parse("", "c.yaml", &["train.bf16=true".to_owned()], &|_| None).unwrap();
        assert!(config.notes().iter().any(|n| n.contains("train.bf16")));
    }
}
