//! Where HF's tensors stand in the reference's parameter tree.

/// A tensor's place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Keys from the root (`params` left out).
    pub path: Vec<String>,
    /// Whether it is stored as `[in, out]`, HF's matrix transposed.
    pub transposed: bool,
}

/// The place of the tensor that HF calls `name`.
pub(super) fn place(name: &str) -> Place {
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let leaf = match kind {
        "weight" if stem.ends_with("embed_tokens") => "embedding",
        "weight" if stem.ends_with("norm") => "scale",
        "weight" => "kernel",
        other => other,
    };
    let mut path: Vec<String> = Vec::new();
    let mut parts = stem.split('.').peekable();
    while let Some(part) = parts.next() {
        match parts.peek() {
            Some(number) if part == "layers" => {
                path.push(format!("layers_{number}"));
                parts.next();
            }
            _ => path.push(part.to_owned()),
        }
    }
    path.push(leaf.to_owned());
    Place { path, transposed: leaf == "kernel" }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn names_become_paths() {
        for (name, path, transposed) in [
            ("lm_head.weight", "lm_head/kernel", true),
            ("model.embed_tokens.weight", "model/embed_tokens/embedding", false),
            ("model.norm.weight", "model/norm/scale", false),
            ("model.layers.11.mlp.up_proj.weight", "model/layers_11/mlp/up_proj/kernel", true),
            ("model.layers.0.self_attn.q_proj.bias", "model/layers_0/self_attn/q_proj/bias", false),
            ("model.layers.0.input_layernorm.weight", "model/layers_0/input_layernorm/scale", false),
        ] {
            let place = place(name);
            assert_eq!((place.path.join("/").as_str(), place.transposed), (path, transposed));
        }
    }
}
