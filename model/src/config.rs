//! HF's `config.json` for the architectures that the programs know: Qwen2 / Qwen2.5 and Llama.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A decoder's hyper-parameters, under HF's names.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `qwen2` or `llama`.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Columns of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` unless given.
    pub head_dim: usize,
    /// Rows of the embedding table, as the checkpoint has them.
    pub vocab_size: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Whether the query, key and value projections have biases: always for Qwen2, by `attention_bias` for Llama.
    pub qkv_bias: bool,
    /// Whether the output projection has one: Llama with `attention_bias`.
    pub output_bias: bool,
    /// Whether the MLP has biases: Llama with `mlp_bias`.
    pub mlp_bias: bool,
    /// Standard deviation of matrices trained from scratch.
    pub initializer_range: f32,
    /// Longest position that the model was trained for.
    pub max_position_embeddings: usize,
    /// The file as it was read, for exports to carry on.
    pub raw: serde_json::Map<String, Value>,
}

/// A `config.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a JSON object.
    #[error("{path}: not a JSON object: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A value is missing, of the wrong type, or something the programs do not implement.
    #[error("{path}: {key}: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it and what would do.
        problem: String,
    },
}

impl ModelConfig {
    /// Reads `dir/config.json`.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        Self::parse(&text, &path)
    }

    /// Reads the text of a `config.json`; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let json = |reason: String| ConfigError::Json { path: path.to_owned(), reason };
        let raw = match serde_json::from_str(text) {
            Ok(Value::Object(map)) => map,
            Ok(_) => return Err(json("the root is something else".into())),
            Err(error) => return Err(json(error.to_string())),
        };
        let keys = Keys { raw: &raw, path };
        let model_type = keys.text("model_type")?;
        let llama = match model_type.as_str() {
            "qwen2" => false,
            "llama" => true,
            other => return Err(keys.wrong("model_type", format!("{other:?} is not known; known: qwen2, llama"))),
        };
        let hidden_act = raw.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        if hidden_act != "silu" {
            return Err(keys.wrong("hidden_act", format!("{hidden_act:?} is not implemented; only silu is")));
        }
        if raw.get("use_sliding_window").and_then(Value::as_bool).unwrap_or(false) {
            return Err(keys.wrong("use_sliding_window", "sliding windows are not implemented".into()));
        }
        let scaled = ["rope_scaling", "rope_parameters"].iter().find(|k| {
            let kind = raw.get(**k).and_then(|v| v.get("rope_type").or_else(|| v.get("type")));
            kind.and_then(Value::as_str).is_some_and(|kind| kind != "default")
        });
        if let Some(key) = scaled {
            return Err(keys.wrong(key, "scaled rotary embeddings are not implemented".into()));
        }
        let flag = |key: &str, default: bool| raw.get(key).and_then(Value::as_bool).unwrap_or(default);
        let heads = keys.size("num_attention_heads")?;
        let hidden_size = keys.size("hidden_size")?;
        let config = Self {
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: keys.size_or("num_key_value_heads", heads)?,
            head_dim: keys.size_or("head_dim", hidden_size / heads)?,
            vocab_size: keys.size("vocab_size")?,
            rms_norm_eps: keys.number_or("rms_norm_eps", 1e-6)? as f32,
            rope_theta: keys.rope_theta()?,
            tie_word_embeddings: flag("tie_word_embeddings", false),
            qkv_bias: if llama { flag("attention_bias", false) } else { true },
            output_bias: llama && flag("attention_bias", false),
            mlp_bias: llama && flag("mlp_bias", false),
            initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
            max_position_embeddings: keys.size_or("max_position_embeddings", 32768)?,
            model_type,
            raw: raw.clone(),
        };
        if config.num_attention_heads % config.num_key_value_heads != 0 {
            let problem = format!("{} does not divide num_attention_heads {heads}", config.num_key_value_heads);
            return Err(keys.wrong("num_key_value_heads", problem));
        }
        if config.head_dim % 2 != 0 {
            return Err(keys.wrong("head_dim", format!("{} is odd; rotary embeddings need pairs", config.head_dim)));
        }
        Ok(config)
    }
}

/// The keys of one file, for errors that name it.
struct Keys<'a> {
    raw: &'a serde_json::Map<String, Value>,
    path: &'a Path,
}

impl Keys<'_> {
    fn wrong(&self, key: &str, problem: String) -> ConfigError {
        ConfigError::Key { path: self.path.to_owned(), key: key.to_owned(), problem }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|v| !v.is_null())
    }

    fn text(&self, key: &str) -> Result<String, ConfigError> {
        let value = self.get(key).ok_or_else(|| self.wrong(key, "missing".into()))?;
        value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(key, format!("{value} is not a string")))
    }

    fn size(&self, key: &str) -> Result<usize, ConfigError> {
        let value = self.get(key).ok_or_else(|| self.wrong(key, "missing".into()))?;
        match value.as_u64() {
            Some(n) if n > 0 => Ok(n as usize),
            _ => Err(self.wrong(key, format!("{value} is not a positive integer"))),
        }
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        self.get(key).map_or(Ok(default), |_| self.size(key))
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        self.get(key).map_or(Ok(default), |v| {
            v.as_f64().filter(|x| *x > 0.0).ok_or_else(|| self.wrong(key, format!("{v} is not a positive number")))
        })
    }

    /// Newer files keep the base under `rope_parameters` (or `rope_scaling`); losing it ruins a model silently.
    fn rope_theta(&self) -> Result<f64, ConfigError> {
        let nested = ["rope_parameters", "rope_scaling"];
        let nested = nested.iter().find_map(|k| self.get(k).and_then(|v| v.get("rope_theta")).and_then(Value::as_f64));
        self.number_or("rope_theta", nested.unwrap_or(10_000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QWEN2: &str = r#"{"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 176, "vocab_size": 2611,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}"#;

    fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
        ModelConfig::parse(text, Path::new("m/config.json"))
    }

    fn with(extra: &str) -> String {
        QWEN2.replacen('{', &format!("{{{extra}, "), 1)
    }

    #[test]
    fn defaults_are_hfs() {
        let config = parse(QWEN2).unwrap();
        assert_eq!((config.head_dim, config.rope_theta, config.tie_word_embeddings), (16, 1e4, false));
        assert!(config.qkv_bias && !config.output_bias);
        let llama = parse(&QWEN2.replace("qwen2", "llama")).unwrap();
        assert!(!llama.qkv_bias);
    }

    #[test]
    fn the_rotary_base_is_found_wherever_it_is_kept() {
        assert_eq!(parse(&with(r#""rope_theta": 1000000.0"#)).unwrap().rope_theta, 1e6);
        let nested = with(r#""rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}"#);
        assert_eq!(parse(&nested).unwrap().rope_theta, 5e5);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_key() {
        for (text, key) in [
            (with(r#""hidden_act": "gelu""#), "hidden_act"),
            (with(r#""rope_scaling": {"rope_type": "yarn", "factor": 4.0}"#), "rope_scaling"),
            (with(r#""head_dim": 15"#), "head_dim"),
            (QWEN2.replace("qwen2", "gpt2"), "model_type"),
            (QWEN2.replace(r#""num_key_value_heads": 2"#, r#""num_key_value_heads": 3"#), "num_key_value_heads"),
            (QWEN2.replace(r#""hidden_size": 64"#, r#""hidden_size": "big""#), "hidden_size"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("m/config.json"), "{error}");
        }
        assert!(parse("[1]").is_err() && parse("{").is_err());
    }
}
