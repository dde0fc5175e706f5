//! Texts to token ids with labels.

use crate::tasks::Text;
use crate::tokenizer::{Encoder, PieceCache, Tokenizer, TokenizerError};

/// A tokenised example. The labels are the tokens from `supervised_from` on; what stands before is context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids.
    pub ids: Vec<u32>,
    /// First supervised token; `ids.len()` for an evaluation prompt.
    pub supervised_from: usize,
}

/// Tokenises `text` as the peers do: its parts apart, the beginning-of-sequence token in front of the instruction and
/// the end-of-sequence token behind the completion where the tokenizer has them. Of more than `max_len` tokens the last
/// ones are kept.
pub fn encode(
    text: &Text,
    tokenizer: &Tokenizer,
    encoder: &Encoder<'_>,
    cache: &mut PieceCache,
    max_len: Option<usize>,
) -> Result<Tokens, TokenizerError> {
    let mut ids: Vec<u32> = tokenizer.bos.into_iter().collect();
    ids.extend(encoder.encode(&text.instruction, cache)?);
    ids.extend(encoder.encode(&text.prompt, cache)?);
    let mut supervised_from = ids.len();
    if !text.completion.is_empty() {
        ids.extend(encoder.encode(&text.completion, cache)?);
        ids.push(tokenizer.eos);
    }
    if let Some(surplus) = max_len.and_then(|max| ids.len().checked_sub(max)) {
        ids.drain(..surplus);
        supervised_from = supervised_from.saturating_sub(surplus);
    }
    Ok(Tokens { ids, supervised_from })
}
