//! HF tokenizers: special tokens, new tokens for SIDs, saving.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{json, Map, Value};
use tokenizers::AddedToken;

/// A tokenizer folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TokenizerError {
    path: PathBuf,
    problem: String,
}

fn error(path: &Path, problem: impl Into<String>) -> TokenizerError {
    TokenizerError { path: path.to_owned(), problem: problem.into() }
}

/// A tokenizer in HF's form (`tokenizer.json`, `tokenizer_config.json`).
#[derive(Clone)]
pub struct Tokenizer {
    dir: PathBuf,
    inner: tokenizers::Tokenizer,
    config: Map<String, Value>,
    /// Id of the beginning-of-sequence token; Qwen has none.
    pub bos: Option<u32>,
    /// Id of the end-of-sequence token.
    pub eos: u32,
    /// Id of the padding token; the end-of-sequence token where there is none.
    pub pad: u32,
}

const JSON: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
/// What else belongs to a tokenizer and is passed on as it is.
const COMPANIONS: [&str; 4] = [SPECIAL, "vocab.json", "merges.txt", "chat_template.jinja"];

impl Tokenizer {
    /// Opens the folder `dir`.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join(JSON);
        if !path.is_file() {
            return Err(error(&path, "there is no such file; give the folder of an HF tokenizer"));
        }
        let inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|e| error(&path, format!("not a tokenizer that can be read: {e}")))?;
        let config = read_object(&dir.join(CONFIG))?;
        let special = read_object(&dir.join(SPECIAL))?;
        let token = |name: &str| {
            let value = config.get(name).filter(|v| !v.is_null()).or_else(|| special.get(name))?;
            value.as_str().or_else(|| value.get("content")?.as_str())
        };
        let id = |name: &str| match token(name) {
            None => Ok(None),
            Some(text) => inner
                .token_to_id(text)
                .map(Some)
                .ok_or_else(|| error(dir, format!("{name} {text:?} is not a token of the vocabulary"))),
        };
        let eos = id("eos_token")?.ok_or_else(|| error(&dir.join(CONFIG), "names no eos_token"))?;
        let (bos, pad) = (id("bos_token")?, id("pad_token")?.unwrap_or(eos));
        Ok(Self { dir: dir.to_owned(), inner, config, bos, eos, pad })
    }

    /// Number of token ids in use: `len(tokenizer)` in Python.
    pub fn vocab_len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Adds those of `tokens` that are not in the vocabulary, in their order, as Python's `add_tokens` does; ids follow
    /// [`Tokenizer::vocab_len`]. Returns the added ones.
    pub fn extend(&mut self, tokens: &[String]) -> Vec<String> {
        let new: Vec<String> = tokens.iter().filter(|t| self.id(t).is_none()).cloned().collect();
        let added: Vec<AddedToken> = new.iter().map(|t| AddedToken::from(t.as_str(), false)).collect();
        self.inner.add_tokens(&added);
        new
    }

    /// Ids of `text`, without special tokens around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false);
        Ok(encoding.map_err(|e| error(&self.dir, format!("cannot encode {text:?}: {e}")))?.get_ids().to_vec())
    }

    /// The text of `ids`.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, false).map_err(|e| error(&self.dir, format!("cannot decode: {e}")))
    }

    /// What follows a SID in a completion, the end-of-sequence token included: a newline as it is encoded after other
    /// text (`encode("a\n")` without `encode("a")`).
    pub fn newline_suffix(&self) -> Result<Vec<u32>, TokenizerError> {
        let (with, without) = (self.encode("a\n")?, self.encode("a")?);
        let common = with.iter().zip(&without).take_while(|(a, b)| a == b).count();
        let mut suffix = with[common..].to_vec();
        suffix.push(self.eos);
        Ok(suffix)
    }

    /// All added tokens, special ones included, with their ids and whether text may be cut at them without regard to
    /// what stands around.
    pub(crate) fn added(&self) -> impl Iterator<Item = (String, u32, bool)> + '_ {
        let plain = |t: &AddedToken| !(t.lstrip || t.rstrip || t.single_word);
        let tokens = self.inner.get_added_tokens_decoder();
        tokens.into_iter().map(move |(id, token)| {
            let plain = plain(&token);
            (token.content, id, plain)
        })
    }

    /// Writes the tokenizer into the existing folder `dir` as `AutoTokenizer` reads it.
    pub fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        let path = dir.join(JSON);
        self.inner.save(&path, true).map_err(|e| error(&path, format!("cannot be written: {e}")))?;
        let mut added: Vec<(u32, AddedToken)> = self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let decoder = added.iter().map(|(id, t)| {
            let entry = json!({"content": t.content, "lstrip": t.lstrip, "normalized": t.normalized,
                "rstrip": t.rstrip, "single_word": t.single_word, "special": t.special});
            (id.to_string(), entry)
        });
        let mut config = self.config.clone();
        config.insert("added_tokens_decoder".into(), Value::Object(decoder.collect()));
        write_object(&dir.join(CONFIG), config)?;
        let by_text = added.iter().map(|(id, token)| (token.content.clone(), Value::from(*id))).collect();
        write_object(&dir.join("added_tokens.json"), by_text)?;
        for name in COMPANIONS {
            let (from, to) = (self.dir.join(name), dir.join(name));
            if from.is_file() && from != to {
                std::fs::copy(&from, &to).map_err(|e| error(&to, format!("cannot be copied: {e}")))?;
            }
        }
        Ok(())
    }

    /// Hash of what decides how text becomes tokens: changes of `tokenizer.json` and of the special tokens show.
    pub fn fingerprint(dir: &Path) -> Result<String, TokenizerError> {
        let mut hasher = blake3::Hasher::new();
        for name in [JSON, CONFIG, SPECIAL] {
            let path = dir.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => {
                    hasher.update(name.as_bytes()).update(&bytes.len().to_le_bytes()).update(&bytes);
                }
                Err(e) if name == JSON => return Err(error(&path, format!("cannot be read: {e}"))),
                Err(_) => {}
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>, TokenizerError> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let text = std::fs::read_to_string(path).map_err(|e| error(path, format!("cannot be read: {e}")))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(error(path, "is not a JSON object")),
        Err(e) => Err(error(path, format!("is not JSON: {e}"))),
    }
}

fn write_object(path: &Path, map: Map<String, Value>) -> Result<(), TokenizerError> {
    let text = format!("{:#}\n", Value::Object(map));
    std::fs::write(path, text).map_err(|e| error(path, format!("cannot be written: {e}")))
}

/// Encodes texts that repeat their parts, faster than the tokenizer does: text is cut at added tokens, as the tokenizer
/// itself cuts it, and what is between them is looked up before it is encoded.
pub struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    added: HashMap<String, u32>,
    /// Lengths of added tokens in bytes, longest first.
    lengths: Vec<usize>,
    /// First bytes of added tokens.
    first: [bool; 256],
    /// Whether pieces can be encoded apart; else whole texts are.
    piecewise: bool,
}

/// Pieces encoded before, for one thread.
#[derive(Default)]
pub struct PieceCache(HashMap<String, Vec<u32>>);

/// Longer pieces hardly repeat.
const CACHED_PIECE_BYTES: usize = 512;
/// Pieces kept; beyond, the cache starts anew.
const CACHED_PIECES: usize = 1 << 16;

impl<'t> Encoder<'t> {
    /// Prepares `tokenizer`, to which all SID tokens have been added.
    pub fn new(tokenizer: &'t Tokenizer) -> Result<Self, TokenizerError> {
        let mut encoder =
            Self { tokenizer, added: HashMap::new(), lengths: Vec::new(), first: [false; 256], piecewise: true };
        for (text, id, plain) in tokenizer.added().filter(|(text, ..)| !text.is_empty()) {
            encoder.piecewise &= plain;
            encoder.first[usize::from(text.as_bytes()[0])] = true;
            encoder.lengths.push(text.len());
            encoder.added.insert(text, id);
        }
        encoder.lengths.sort_unstable_by(|a, b| b.cmp(a));
        encoder.lengths.dedup();
        // tokenizers that treat the start of a text differently (a leading blank) show it here
        if let Some(token) = encoder.added.keys().find(|t| t.contains('_')).or_else(|| encoder.added.keys().next()) {
            let probe = format!("### User Input: \nitems {token}{token}, {token} in order\n\n### Response:\n{token}\n");
            encoder.piecewise &= encoder.by_pieces(&probe, &mut PieceCache::default())? == tokenizer.encode(&probe)?;
        }
        Ok(encoder)
    }

    /// Ids of `text`, without special tokens around it.
    pub fn encode(&self, text: &str, cache: &mut PieceCache) -> Result<Vec<u32>, TokenizerError> {
        if self.piecewise {
            self.by_pieces(text, cache)
        } else {
            self.tokenizer.encode(text)
        }
    }

    fn by_pieces(&self, text: &str, cache: &mut PieceCache) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let (mut start, mut at) = (0, 0);
        let bytes = text.as_bytes();
        while at < bytes.len() {
            let found = if self.first[usize::from(bytes[at])] { self.added_at(text, at) } else { None };
            match found {
                Some((len, id)) => {
                    self.piece(&text[start..at], cache, &mut ids)?;
                    ids.push(id);
                    at += len;
                    start = at;
                }
                None => at += 1,
            }
        }
        self.piece(&text[start..], cache, &mut ids)?;
        Ok(ids)
    }

    fn added_at(&self, text: &str, at: usize) -> Option<(usize, u32)> {
        let candidate = |len: usize| text.get(at..at + len).and_then(|t| self.added.get(t)).map(|&id| (len, id));
        self.lengths.iter().find_map(|&len| candidate(len))
    }

    fn piece(&self, piece: &str, cache: &mut PieceCache, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if piece.is_empty() {
            return Ok(());
        }
        if let Some(known) = cache.0.get(piece) {
            ids.extend(known);
            return Ok(());
        }
        let encoded = self.tokenizer.encode(piece)?;
        ids.extend(&encoded);
        if piece.len() <= CACHED_PIECE_BYTES {
            if cache.0.len() >= CACHED_PIECES {
                cache.0.clear();
            }
            cache.0.insert(piece.to_owned(), encoded);
        }
        Ok(())
    }
}
