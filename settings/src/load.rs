use std::path::Path;

use serde_json::{Map, Value};

use crate::expand::expand;
use crate::{Config, SettingsError};

/// Gives the value of an environment variable.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads the YAML file `path`, lays it and then the `overrides` (`a.b=value`) over the defaults, and checks the
    /// result. Strings may contain environment variables.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, SettingsError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SettingsError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string(), overrides, &|name| std::env::var(name).ok())
    }

    /// As [`Config::load`], from a text; `origin` is named in errors and becomes `config_path`.
    pub fn parse(text: &str, origin: &str, overrides: &[String], env: Lookup<'_>) -> Result<Self, SettingsError> {
        // a struct of plain types always has a JSON form
        let mut tree = serde_json::to_value(Self::default()).expect("the defaults serialize");
        merge(&mut tree, parse_yaml(text, origin)?, "", origin, env)?;
        for text in overrides {
            let (key, value) = text.split_once('=').ok_or_else(|| SettingsError::Override(text.clone()))?;
            let origin = format!("--set {text}");
            let leaf = serde_yaml::from_str(value)
                .map_err(|e| SettingsError::Yaml { origin: origin.clone(), reason: e.to_string() })?;
            let nested = key
                .trim()
                .rsplit('.')
                .fold(leaf, |value, part| Value::Object(Map::from_iter([(part.to_owned(), value)])));
            merge(&mut tree, nested, "", &origin, env)?;
        }
        tree["config_path"] = origin.into();
        let config: Self = serde_path_to_error::deserialize(&tree).map_err(|error| {
            let key = error.path().to_string();
            SettingsError::Value { origin: origin.to_owned(), key, problem: error.into_inner().to_string() }
        })?;
        config.validate(origin)?;
        Ok(config)
    }

    /// The settings as YAML, in the order of the reference's `--print-config`.
    pub fn to_yaml(&self) -> String {
        // a struct of plain types always has a YAML form
        serde_yaml::to_string(self).expect("settings serialize")
    }

    /// The settings as JSON, in the same order.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("settings serialize")
    }
}

fn parse_yaml(text: &str, origin: &str) -> Result<Value, SettingsError> {
    let yaml = |reason: String| SettingsError::Yaml { origin: origin.to_owned(), reason };
    match serde_yaml::from_str(text) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(yaml("the root is something else".into())),
        Err(error) => Err(yaml(error.to_string())),
    }
}

/// Lays `new` over `tree`; null keeps what is there.
fn merge(tree: &mut Value, new: Value, path: &str, origin: &str, env: Lookup<'_>) -> Result<(), SettingsError> {
    let wrong = |problem: String| SettingsError::Value { origin: origin.to_owned(), key: path.to_owned(), problem };
    match (tree, new) {
        (_, Value::Null) => {}
        (Value::Object(known), Value::Object(new)) => {
            for (key, value) in new {
                let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get_mut(&key) {
                    Some(slot) => merge(slot, value, &full, origin, env)?,
                    None => return Err(unknown(full, &key, known, path, origin)),
                }
            }
        }
        (Value::Object(_), other) => return Err(wrong(format!("{other} is not a map of settings"))),
        (slot, Value::String(text)) if text.contains('$') => {
            // what a variable holds is read as if it stood in the file
            let expanded = expand(&text, env);
            let value: Value = serde_yaml::from_str(&expanded).unwrap_or(Value::String(expanded));
            if !value.is_null() {
                *slot = coerce(slot, value);
            }
        }
        (slot, value) => *slot = coerce(slot, value),
    }
    Ok(())
}

/// A scalar in the type of the default where the reference would convert it, too; else unchanged, for the schema to
/// refuse.
fn coerce(default: &Value, value: Value) -> Value {
    match (default, &value) {
        (Value::Number(d), Value::String(text)) if d.is_f64() => {
            text.trim().parse::<f64>().ok().and_then(serde_json::Number::from_f64).map_or(value, Value::Number)
        }
        (Value::Number(_), Value::String(text)) => text.trim().parse::<i64>().map_or(value, Value::from),
        (Value::Number(d), Value::Number(n)) if !d.is_f64() && n.as_i64().is_none() && n.as_u64().is_none() => {
            match n.as_f64() {
                Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => Value::from(whole as i64),
                _ => value,
            }
        }
        (Value::Bool(_), Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Value::Bool(true),
            "false" | "no" | "off" | "0" => Value::Bool(false),
            _ => value,
        },
        (Value::String(_), Value::Number(n)) => Value::String(n.to_string()),
        _ => value,
    }
}

fn unknown(full: String, key: &str, known: &Map<String, Value>, path: &str, origin: &str) -> SettingsError {
    let distance = |candidate: &&String| strsim::damerau_levenshtein(&candidate.to_lowercase(), &key.to_lowercase());
    let nearest = known.keys().min_by_key(distance).filter(|n| distance(n) <= n.len().max(key.len()) / 2);
    let nearest = nearest.map(|n| if path.is_empty() { n.clone() } else { format!("{path}.{n}") });
    SettingsError::UnknownKey { origin: origin.to_owned(), key: full, nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str, overrides: &[&str]) -> Result<Config, SettingsError> {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        Config::parse(yaml, "c.yaml", &overrides, &|name| (name == "LR").then(|| "1e-3".into()))
    }

    fn message(yaml: &str, overrides: &[&str]) -> String {
        parse(yaml, overrides).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse("", &[]).unwrap();
        assert_eq!(config, Config { config_path: "c.yaml".into(), ..Config::default() });
    }

    #[test]
    fn files_and_then_overrides_lie_over_the_defaults() {
        let yaml = "train: {learning_rate: 3e-4, max_steps: 7, freeze_LLM: null}\neval: {topk: [1, 5]}";
        let config = parse(yaml, &["train.max_steps=9", "eval.topk=[10]", "jax.mesh_shape=1,2,1"]).unwrap();
        assert_eq!((config.train.max_steps, config.train.freeze_llm), (9, false));
        assert_eq!((config.eval.topk, config.jax.mesh_shape.as_str()), (vec![10], "1,2,1"));
    }

    #[test]
    fn values_are_converted_as_the_reference_does() {
        let yaml = "train: {learning_rate: '3e-4', max_steps: '5', num_train_epochs: 2, pack: 'no', warmup_steps: 3.0}";
        let train = parse(yaml, &[]).unwrap().train;
        assert_eq!((train.learning_rate, train.max_steps, train.num_train_epochs), (3e-4, 5, 2.0));
        assert_eq!((train.pack, train.warmup_steps), (false, 3));
    }

    #[test]
    fn variables_are_read_as_yaml() {
        let yaml = "train: {learning_rate: $LR}\noutput_dir: runs/${NOPE}x\nseed: $NOPE";
        let config = parse(yaml, &["seed=7"]).unwrap();
        assert_eq!((config.train.learning_rate, config.output_dir.to_str()), (1e-3, Some("runs/x")));
        assert_eq!((config.seed, parse(yaml, &[]).unwrap().seed), (7, 42));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let text = message("train: {learning_rat: 1}", &[]);
        assert_eq!(text, "c.yaml: unknown key \"train.learning_rat\"; did you mean \"train.learning_rate\"?");
        assert!(message("", &["trian.max_steps=1"]).contains("did you mean \"train\"?"));
        assert!(message("zzzzzzzzzz: 1", &[]).ends_with("\"zzzzzzzzzz\""));
    }

    #[test]
    fn wrong_values_name_their_key() {
        assert!(message("train: {max_steps: many}", &[]).contains("train.max_steps"));
        assert!(message("train: 3", &[]).contains("train: 3 is not a map"));
        assert!(message("train: {semantics: torch}", &[]).contains("train.semantics"));
        assert!(message("[1]", &[]).contains("not a YAML map"));
        assert!(message("a: [", &[]).contains("c.yaml"));
        assert!(message("", &["train.max_steps"]).contains("KEY=VALUE"));
    }

    #[test]
    fn printed_settings_are_read_back() {
        let config = parse("seed: 7", &["eval.split=valid"]).unwrap();
        assert_eq!(Config::parse(&config.to_yaml(), "c.yaml", &[], &|_| None).unwrap(), config);
        let keys: Vec<String> = config.to_json().as_object().unwrap().keys().cloned().collect();
        let reference = "config_path backend base_model output_dir seed device data jax tasks train eval wandb";
        assert_eq!(keys[..12].join(" "), reference);
    }
}
