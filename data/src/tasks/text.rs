//! The texts.

/// An example before tokenisation. The three parts are tokenised apart and joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The instruction.
    pub instruction: String,
    /// The prompt; for evaluation it ends where the answer starts.
    pub prompt: String,
    /// The answer with its newline, or nothing for evaluation.
    pub completion: String,
}

const PREAMBLE: &str = "Below is an instruction that describes a task, paired with an input that provides further \
                        context. Write a response that appropriately completes the request. \n\n### Instruction:\n";

fn text(line: &str, input: &str, shown_answer: &str, completion: String) -> Text {
    Text {
        instruction: format!("{PREAMBLE}{line}\n\n"),
        prompt: format!("### User Input: \n{input}\n\n### Response:\n{shown_answer}"),
        completion,
    }
}

const NEXT_ITEM: &str = "Can you predict the next possible item that the user may expect?";

/// T1.
pub(super) fn sid_next_item(history: &[String], sid: &str) -> Text {
    let history = history.join(", ");
    let input = format!("The user has interacted with items {history} in chronological order. {NEXT_ITEM}");
    text(NEXT_ITEM, &input, "", format!("{sid}\n"))
}

/// E1's question; it differs from T1's.
pub(super) fn evaluation_input(history: &[String]) -> String {
    let history = history.join(", ");
    format!(
        "Can you predict the next possible item the user may expect, given the following chronological interaction \
         history: {history}"
    )
}

/// E1.
pub(super) fn evaluation(history: &[String]) -> Text {
    text(NEXT_ITEM, &evaluation_input(history), "", String::new())
}

const IDENTIFICATION: &str = "Answer the question about item identification.";

/// T2, SID to title. `leak` shows the answer in the prompt, as upstream does.
pub(super) fn sid_to_title(sid: &str, title: &str, leak: bool) -> Text {
    let input = format!("What is the title of item \"{sid}\"?");
    text(IDENTIFICATION, &input, if leak { title } else { "" }, format!("{title}\n"))
}

/// T2, title to SID.
pub(super) fn title_to_sid(title: &str, sid: &str, leak: bool) -> Text {
    let input = format!("Which item has the title: {title}?");
    text(IDENTIFICATION, &input, if leak { sid } else { "" }, format!("{sid}\n"))
}

/// T3.
pub(super) fn fusion_seq_rec(history: &[String], title: &str) -> Text {
    let history = history.join(", ");
    let input = format!(
        "The user has sequentially interacted with items {history}. Can you recommend the next item for him? Tell me \
         the title of the item"
    );
    let line = "Can you recommend the next item for the user based on their interaction history?";
    text(line, &input, "", format!("{title}\n"))
}

/// T4's instructions, one chosen for each row; `{c}` stands for the category.
pub const TITLE_INSTRUCTIONS: [&str; 11] = [
    "Given a list of {c} the user recetenly enjoy, please write a new {c} that the user may bought",
    "Considering the {c} that has recently captured the user's interest, kindly create a compilation of other {c} that \
     the user might have played prior to this.",
    "Based on the user's current gaming preference, please draft a list of potential {c} they may have experienced \
     beforehand.",
    "Reflecting on the {c} the user has taken pleasure in recently, we request that you formulate a list of {c} that \
     may have preceded the user's current enjoyment.",
    "In light of the recent gaming enjoyment expressed by the user, please assemble a list of {c} that could \
     potentially include past titles the user has engaged with.",
    "Taking into account the {c} that has lately provided enjoyment to the user, please put together an inventory of \
     {c} the user might have explored previously.",
    "Given the user's newfound enjoyment of a particular {c}, would you kindly generate a roster of other {c} that \
     might resonate with their past gaming experiences?",
    "In response to the user's recent fondness for a specific {c}, we seek your assistance in listing possible {c} the \
     user may have delighted in earlier.",
    "With respect to the {c} currently enjoyed by the user, please compile a suggestive list of {c} they may have \
     played in the past.",
    "Bearing in mind the {c} that the user has recently been enthralled by, please construct a catalog of other {c} \
     that the user potentially partook in beforehand.",
    "In relation to the user's recent entertainment with a given {c}, it would be appreciated if you could curate a \
     list of {c} that might form part of the user's previous gaming history.",
];

/// E2, with instruction `number`.
pub(super) fn title_evaluation(number: usize, category: &str, history: &[String]) -> Text {
    let quoted: Vec<String> = history.iter().map(|t| format!("\"{t}\"")).collect();
    let input = format!("The user has palyed the following {category}s before: {}", quoted.join(",\t"));
    text(&TITLE_INSTRUCTIONS[number].replace("{c}", category), &input, "", String::new())
}

/// T4, with instruction `number`.
pub(super) fn title_history_next_title(number: usize, category: &str, history: &[String], title: &str) -> Text {
    let Text { instruction, prompt, .. } = title_evaluation(number, category, history);
    // in training this instruction, and no other, ends in newline, blank, newline
    Text { instruction: format!("{}\n \n", instruction.trim_end()), prompt, completion: format!("\"{title}\"\n") }
}

/// T5.
pub(super) fn title_history_next_sid(category: &str, history: &[String], sid: &str) -> Text {
    let quoted: Vec<String> = history.iter().map(|t| format!("\"{t}\"")).collect();
    let input = format!(
        "The user has interacted with the following {category} items in chronological order: {}. Can you predict the \
         next item the user may expect?",
        quoted.join(", ")
    );
    let line = "Based on the user's historical interaction with item titles, predict the semantic ID of the next item \
                they may expect.";
    text(line, &input, "", format!("{sid}\n"))
}

/// The words for a category in T4 and T5.
pub fn category_words(category: &str) -> Option<&'static str> {
    Some(match category {
        "Industrial_and_Scientific" => "industrial and scientific items",
        "Office_Products" => "office products",
        "Toys_and_Games" => "toys and games",
        "Sports" => "sports and outdoors",
        "Books" => "books",
        _ => return None,
    })
}
