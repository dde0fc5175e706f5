//! The training tasks and the evaluation prompts, word for word as the peers have them (their misspellings included).

mod corpus;
mod text;

pub use corpus::{Corpus, CorpusOptions, ExampleRef, TaskError};
pub use text::{category_words, Text, TITLE_INSTRUCTIONS};

/// What an example asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Task {
    /// T1: history of SIDs to next SID.
    SidNextItem = 1,
    /// T2: SID to title and title to SID.
    SidItemAlignment = 2,
    /// T3: history of SIDs to title of the next item.
    FusionSeqRec = 3,
    /// T4: history of titles to next title.
    TitleHistoryNextTitle = 4,
    /// T5: history of titles to next SID.
    TitleHistoryNextSid = 5,
    /// E1: the prompt that is evaluated.
    Evaluation = 6,
    /// E2: T4's question as a prompt. Upstream has it and never evaluates it; no setting here enables it.
    TitleEvaluation = 7,
}

impl Task {
    /// The training tasks in the order in which they are mixed.
    pub const TRAINING: [Self; 5] = [
        Self::SidNextItem,
        Self::SidItemAlignment,
        Self::FusionSeqRec,
        Self::TitleHistoryNextTitle,
        Self::TitleHistoryNextSid,
    ];

    /// The task's key in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::SidNextItem => "sid_next_item",
            Self::SidItemAlignment => "sid_item_alignment",
            Self::FusionSeqRec => "fusion_seq_rec",
            Self::TitleHistoryNextTitle => "title_history_next_title",
            Self::TitleHistoryNextSid => "title_history_next_sid",
            Self::Evaluation => "evaluation",
            Self::TitleEvaluation => "title_evaluation",
        }
    }

    /// The inverse of `task as u8`.
    pub fn from_code(code: u32) -> Option<Self> {
        let prompts = [Self::Evaluation, Self::TitleEvaluation];
        Self::TRAINING.into_iter().chain(prompts).find(|t| *t as u32 == code)
    }

    /// Whether only upstream has the task: it asks about titles instead of SIDs.
    pub fn is_upstream_only(self) -> bool {
        matches!(self, Self::TitleHistoryNextTitle | Self::TitleHistoryNextSid | Self::TitleEvaluation)
    }
}
