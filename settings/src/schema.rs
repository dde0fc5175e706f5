use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All settings of a run. Keys, defaults and order are those of the JAX plugin's YAML; ours follow or are marked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The file that the settings came from.
    pub config_path: String,
    /// `jax` or `tpu`: both mean this system. The plugin's torch backend does not exist here.
    pub backend: String,
    /// Folder with `config.json` and safetensors, or the name of a model in the local Hugging Face cache.
    pub base_model: String,
    /// Where results go.
    pub output_dir: PathBuf,
    /// Seed of sampling, shuffling and initialisation.
    pub seed: u64,
    /// Ignored: see `runtime.platform`.
    pub device: String,
    /// Input files.
    pub data: Data,
    /// Mesh and number formats.
    pub jax: Jax,
    /// Which training tasks are mixed.
    pub tasks: Tasks,
    /// Training.
    pub train: Train,
    /// Evaluation.
    pub eval: Eval,
    /// Weights & Biases.
    pub wandb: Wandb,
    /// Ours: folder of the tokenizer; `base_model`'s folder unless given.
    pub tokenizer: Option<String>,
    /// Ours: devices.
    pub runtime: Runtime,
}

/// Mesh and number formats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jax {
    /// `auto`, `dp,fsdp,tp` (one may be -1) or `dp:1,fsdp:-1,tp:1`.
    pub mesh_shape: String,
    /// Type of the parameters; kept in float32 here whatever it says.
    pub param_dtype: String,
    /// Type of the products.
    pub compute_dtype: String,
    /// Ignored: caches are as long as their prompts need.
    pub max_cache_length: usize,
}

/// Input files and how much of them is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Category, for the words of the title tasks and run names.
    pub category: String,
    /// CSV of training interactions.
    pub train_file: PathBuf,
    /// CSV of validation interactions.
    pub eval_file: PathBuf,
    /// CSV of test interactions.
    pub test_file: PathBuf,
    /// Items: SID, title, id.
    pub info_file: PathBuf,
    /// `index.json`: the SID tokens of every item.
    pub sid_index_path: PathBuf,
    /// `item.json`: the titles.
    pub item_meta_path: PathBuf,
    /// Longest example in tokens; longer ones lose their beginning.
    pub max_len: usize,
    /// Rows per task used for training; -1 for all.
    pub sample_train: i64,
    /// Rows used for validation; -1 for all.
    pub sample_eval: i64,
    /// Rows used for testing; -1 for all.
    pub sample_test: i64,
    /// Ours: folder of the prepared shards; `<output_dir>/prepared` unless given.
    pub prepared_dir: Option<PathBuf>,
    /// Ours: drop training rows whose target is the last item of the history.
    pub dedup: bool,
}

/// Which training tasks are mixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// History of SIDs to next SID.
    pub sid_next_item: bool,
    /// SID to title and title to SID.
    pub sid_item_alignment: bool,
    /// History of SIDs to title of the next item.
    pub fusion_seq_rec: bool,
    /// Ours: history of titles to next title.
    pub title_history_next_title: bool,
    /// Ours: history of titles to next SID.
    pub title_history_next_sid: bool,
    /// Ours: put the answer into the prompt of the alignment task, as upstream does.
    pub leak_answers: bool,
}

/// Whose training semantics are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Semantics {
    /// MiniOneRec: token-weighted loss over the effective batch, linear decay, tied head where the model says so.
    Upstream,
    /// MLLM-JAX `plugins/sft`: mean of micro-batch means, constant rate, untied head, its order of examples.
    JaxPlugin,
}

/// Course of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Warm-up, then constant.
    Constant,
    /// Warm-up, then linearly to zero.
    Linear,
    /// Warm-up, then half a cosine to zero.
    Cosine,
}

/// What a layer's forward pass leaves for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remat {
    /// The results of all products: nothing dear is computed twice.
    None,
    /// Only its input: a fraction of the memory, a third more of the work.
    Layers,
}

/// Decay rates of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// First moment.
    pub beta1: f64,
    /// Second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Rows of a micro-batch per data-parallel replica.
    pub per_device_train_batch_size: usize,
    /// Rows of a validation batch per data-parallel replica.
    pub per_device_eval_batch_size: usize,
    /// Micro-batches of an optimizer step.
    pub gradient_accumulation_steps: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// `adamw` (or `adam`) or `lion`.
    pub optimizer: String,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Epochs, unless `max_steps` is positive.
    pub num_train_epochs: f64,
    /// Optimizer steps; -1 for as many as the epochs take.
    pub max_steps: i64,
    /// Steps over which the learning rate rises from zero.
    pub warmup_steps: usize,
    /// Steps between printed lines.
    pub logging_steps: usize,
    /// Steps between validations; 0 for none.
    pub eval_steps: usize,
    /// Steps between checkpoints; 0 for none but the last.
    pub save_steps: usize,
    /// Checkpoints kept; 0 for all.
    pub save_total_limit: usize,
    /// Batch examples of similar length.
    pub group_by_length: bool,
    /// Train only the rows of new tokens.
    #[serde(rename = "freeze_LLM")]
    pub freeze_llm: bool,
    /// Start from random weights instead of `base_model`'s.
    pub train_from_scratch: bool,
    /// Checkpoint to start from: a state file of this system (training goes on where it was), a state file of the
    /// reference or a folder in HF's form (weights only), or `auto` for the newest of `output_dir`, if there is one.
    pub resume_from_checkpoint: Option<PathBuf>,
    /// Validations without improvement after which training stops; 0 for never.
    pub early_stopping_patience: usize,
    /// Ignored: see `jax.compute_dtype`.
    pub bf16: bool,
    /// Ignored: see `jax.compute_dtype`.
    pub fp16: bool,
    /// Ours: whose semantics.
    pub semantics: Semantics,
    /// Ours: course of the learning rate; linear (upstream) or constant (plugin) unless given.
    pub lr_schedule: Option<LrSchedule>,
    /// Ours: several examples in one row, with attention kept apart. The loss does not change.
    pub pack: bool,
    /// Ours: AdamW's decay rates.
    pub adam: Adam,
    /// Ours: gradients are scaled down to this global norm; 0 for no clipping.
    pub max_grad_norm: f64,
    /// Ours: type of the optimizer's moments.
    pub moments_dtype: String,
    /// Ours: rematerialisation; `none` on CPU and `layers` elsewhere unless given.
    pub remat: Option<Remat>,
    /// Ours: the result is the state of the lowest validation loss instead of the last one; upstream's semantics do so
    /// unless told otherwise, the plugin's do not.
    pub load_best_model_at_end: Option<bool>,
}

/// Evaluated split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// `data.eval_file`.
    Valid,
    /// `data.test_file`.
    Test,
}

/// Shape of the prediction file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionFormat {
    /// The plugin's rows: `output` and `predict`.
    Jax,
    /// Upstream's rows: `input`, `output` and `predict`.
    Upstream,
}

/// Evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    /// Whether to evaluate at all.
    pub enabled: bool,
    /// Prompts that a device searches at a time.
    pub batch_size: usize,
    /// Beams, and predictions per prompt.
    pub num_beams: usize,
    /// Ignored: a SID and its suffix are generated, nothing else.
    pub max_new_tokens: usize,
    /// Ignored: all candidates have the same length.
    pub length_penalty: f64,
    /// Cut-offs of the metrics.
    pub topk: Vec<usize>,
    /// Search among existing SIDs only; nothing else is implemented.
    pub constrained: bool,
    /// Whether to write the predictions.
    pub save_predictions_json: bool,
    /// Ours: prompts are padded to the first of these lengths that holds them; one program each.
    pub length_buckets: Vec<usize>,
    /// Ours: which split.
    pub split: Split,
    /// Ours: shape of the prediction file.
    pub prediction_format: PredictionFormat,
}

/// Weights & Biases. Nothing is sent from here; see the documentation on importing `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wandb {
    /// Project.
    pub project: String,
    /// `online`, `offline` or `disabled`.
    pub mode: String,
    /// Run name.
    pub name: Option<String>,
}

/// Where programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlatformChoice {
    /// TPU or GPU if there is one with its plugin, else CPU.
    Auto,
    /// CPU devices.
    Cpu,
    /// TPU.
    Tpu,
    /// NVIDIA GPU.
    Cuda,
}

/// Devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// Which kind.
    pub platform: PlatformChoice,
    /// PJRT plugin; found by itself unless given.
    pub plugin: Option<PathBuf>,
    /// Devices of every host; on CPU 1, elsewhere all there are, unless given.
    pub devices_per_host: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        let amazon = |path: &str| PathBuf::from(format!("workdir/MiniOneRec/data/Amazon/{path}"));
        let csv = |split: &str| amazon(&format!("{split}/Industrial_and_Scientific_5_2016-10-2018-11.csv"));
        Self {
            config_path: "<default>".into(),
            backend: "jax".into(),
            base_model: "Qwen/Qwen2.5-0.5B".into(),
            output_dir: "runs/sid_sft".into(),
            seed: 42,
            device: "cpu".into(),
            data: Data {
                category: "Industrial_and_Scientific".into(),
                train_file: csv("train"),
                eval_file: csv("valid"),
                test_file: csv("test"),
                info_file: amazon("info/Industrial_and_Scientific_5_2016-10-2018-11.txt"),
                sid_index_path: amazon("index/Industrial_and_Scientific.index.json"),
                item_meta_path: amazon("index/Industrial_and_Scientific.item.json"),
                max_len: 512,
                sample_train: -1,
                sample_eval: -1,
                sample_test: -1,
                prepared_dir: None,
                dedup: false,
            },
            jax: Jax {
                mesh_shape: "1,-1,1".into(),
                param_dtype: "float32".into(),
                compute_dtype: "bfloat16".into(),
                max_cache_length: 2048,
            },
            tasks: Tasks {
                sid_next_item: true,
                sid_item_alignment: true,
                fusion_seq_rec: true,
                title_history_next_title: false,
                title_history_next_sid: false,
                leak_answers: false,
            },
            train: Train {
                per_device_train_batch_size: 1,
                per_device_eval_batch_size: 1,
                gradient_accumulation_steps: 1,
                learning_rate: 3e-4,
                optimizer: "adamw".into(),
                weight_decay: 0.0,
                num_train_epochs: 1.0,
                max_steps: -1,
                warmup_steps: 0,
                logging_steps: 10,
                eval_steps: 200,
                save_steps: 200,
                save_total_limit: 1,
                group_by_length: false,
                freeze_llm: false,
                train_from_scratch: false,
                resume_from_checkpoint: None,
                early_stopping_patience: 3,
                bf16: false,
                fp16: false,
                semantics: Semantics::Upstream,
                lr_schedule: None,
                pack: true,
                adam: Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
                max_grad_norm: 1.0,
                moments_dtype: "float32".into(),
                remat: None,
                load_best_model_at_end: None,
            },
            eval: Eval {
                enabled: true,
                batch_size: 4,
                num_beams: 50,
                max_new_tokens: 64,
                length_penalty: 0.0,
                topk: vec![1, 3, 5, 10, 20, 50],
                constrained: true,
                save_predictions_json: true,
                length_buckets: vec![64, 96, 128, 192, 256, 512],
                split: Split::Test,
                prediction_format: PredictionFormat::Jax,
            },
            wandb: Wandb { project: "minionerec-sid-sft".into(), mode: "online".into(), name: None },
            tokenizer: None,
            runtime: Runtime { platform: PlatformChoice::Auto, plugin: None, devices_per_host: None },
        }
    }
}

impl Config {
    /// Where the prepared shards are.
    pub fn prepared_dir(&self) -> PathBuf {
        self.data.prepared_dir.clone().unwrap_or_else(|| self.output_dir.join("prepared"))
    }

    /// Whether the best state is the result, by semantics unless given.
    pub fn load_best(&self) -> bool {
        self.train.load_best_model_at_end.unwrap_or(self.train.semantics == Semantics::Upstream)
    }

    /// The course of the learning rate, by semantics unless given.
    pub fn lr_schedule(&self) -> LrSchedule {
        self.train.lr_schedule.unwrap_or(match self.train.semantics {
            Semantics::Upstream => LrSchedule::Linear,
            Semantics::JaxPlugin => LrSchedule::Constant,
        })
    }
}
