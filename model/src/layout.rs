//! The parameters of a model: which tensors there are and how each is sharded.

use crate::config::ModelConfig;
use crate::mesh::Mesh;
use crate::params::{Init, Param};

/// Rows of the embedding table and of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vocab {
    /// Rows that are tokens (or rows of the checkpoint): the others never take part in a softmax.
    pub tokens: usize,
    /// Rows of the tensors: `tokens` rounded up so that the mesh divides them.
    pub rows: usize,
}

impl Vocab {
    /// `tokens` rows padded to a multiple of `fsdp × tp`, as the reference pads them.
    pub fn padded(tokens: usize, mesh: &Mesh) -> Self {
        Self { tokens, rows: tokens.next_multiple_of(mesh.fsdp * mesh.tp) }
    }
}

/// A mesh that cannot hold a model.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("jax.mesh_shape: tp {tp} does not divide the model's {what} ({size}); choose a tp that does")]
pub struct TpError {
    tp: usize,
    what: &'static str,
    size: usize,
}

/// Checks that tensor parallelism splits whole heads and columns; everything else is padded where it does not divide.
pub fn check_mesh(config: &ModelConfig, mesh: &Mesh) -> Result<(), TpError> {
    let sizes = [
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads),
        ("intermediate_size", config.intermediate_size),
    ];
    match sizes.into_iter().find(|(_, size)| size % mesh.tp != 0) {
        Some((what, size)) => Err(TpError { tp: mesh.tp, what, size }),
        None => Ok(()),
    }
}

/// All parameters of a model, the tensors of its layers stacked, in HF's names and `[out, in]` layout.
///
/// Matrices are sharded over `fsdp` along the dimension that `tp` does not split; the embedding table and the head
/// along their rows. Norms and biases are small and stay whole (biases of split columns are split with them).
pub fn params(config: &ModelConfig, vocab: Vocab) -> Vec<Param> {
    let hidden = config.hidden_size;
    let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let mlp = config.intermediate_size;
    let normal = Init::Normal(config.initializer_range);
    let table = |name: &str| Param {
        name: name.to_owned(),
        shape: vec![vocab.rows, hidden],
        fsdp_dim: Some(0),
        tp_dim: None,
        init: normal,
    };
    let layer = |name: &str, shape: &[usize], fsdp_dim, tp_dim, init| Param {
        name: format!("model.layers.*.{name}"),
        shape: [&[config.num_hidden_layers], shape].concat(),
        fsdp_dim,
        tp_dim,
        init,
    };
    let columns = |name: &str, out| layer(&format!("{name}.weight"), &[out, hidden], Some(2), Some(1), normal);
    let rows = |name: &str, from| layer(&format!("{name}.weight"), &[hidden, from], Some(1), Some(2), normal);
    let split_bias = |name: &str, out| layer(&format!("{name}.bias"), &[out], None, Some(1), Init::Zeros);
    let whole_bias = |name: &str| layer(&format!("{name}.bias"), &[hidden], None, None, Init::Zeros);
    let norm = |name: &str| layer(name, &[hidden], None, None, Init::Ones);

    let mut params = vec![table("model.embed_tokens.weight"), norm("input_layernorm.weight")];
    for (name, out) in [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)] {
        params.push(columns(name, out));
        params.extend(config.qkv_bias.then(|| split_bias(name, out)));
    }
    params.push(rows("self_attn.o_proj", q));
    params.extend(config.output_bias.then(|| whole_bias("self_attn.o_proj")));
    params.push(norm("post_attention_layernorm.weight"));
    for name in ["mlp.gate_proj", "mlp.up_proj"] {
        params.push(columns(name, mlp));
        params.extend(config.mlp_bias.then(|| split_bias(name, mlp)));
    }
    params.push(rows("mlp.down_proj", mlp));
    params.extend(config.mlp_bias.then(|| whole_bias("mlp.down_proj")));
    params.push(Param {
        name: "model.norm.weight".into(),
        shape: vec![hidden],
        fsdp_dim: None,
        tp_dim: None,
        init: Init::Ones,
    });
    if !config.tie_word_embeddings {
        params.push(table("lm_head.weight"));
    }
    params
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(extra: &str) -> ModelConfig {
        let text = format!(
            r#"{{"model_type": "qwen2", "hidden_size": 8, "intermediate_size": 12, "vocab_size": 10, {extra}
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}}"#
        );
        ModelConfig::parse(&text, Path::new("config.json")).unwrap()
    }

    #[test]
    fn a_tied_model_has_no_head_of_its_own() {
        let vocab = Vocab::padded(10, &Mesh { dp: 1, fsdp: 4, tp: 1 });
        assert_eq!(vocab, Vocab { tokens: 10, rows: 12 });
        let names = |c: &ModelConfig| params(c, vocab).into_iter().map(|p| p.name).collect::<Vec<_>>();
        let untied = names(&config(""));
        let tied = names(&config(r#""tie_word_embeddings": true,"#));
        assert_eq!(untied.len(), tied.len() + 1);
        assert!(!tied.contains(&"lm_head.weight".to_owned()));
        assert!(tied.contains(&"model.layers.*.self_attn.k_proj.bias".to_owned()));
    }

    #[test]
    fn tp_must_split_whole_heads() {
        let error = check_mesh(&config(""), &Mesh { dp: 1, fsdp: 1, tp: 4 }).unwrap_err().to_string();
        assert!(error.contains("num_key_value_heads (2)"), "{error}");
        assert_eq!(check_mesh(&config(""), &Mesh { dp: 1, fsdp: 3, tp: 2 }), Ok(()));
    }
}
