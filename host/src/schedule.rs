//! Learning rates by step, as HF's schedulers give them.

use sft_settings::LrSchedule;

/// Course of the learning rate over a run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Shape after the warm-up.
    pub kind: LrSchedule,
    /// Steps over which it rises from zero.
    pub warmup_steps: usize,
    /// Steps of the run.
    pub total_steps: usize,
}

impl Schedule {
    /// The learning rate of optimizer step `step`, from 0. The first of a warm-up is zero, as HF's is.
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = (step - self.warmup_steps) as f64 / rest;
        match self.kind {
            LrSchedule::Constant => self.peak,
            LrSchedule::Linear => self.peak * (1.0 - done).max(0.0),
            LrSchedule::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_transformers() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
        if !std::path::Path::new(root).exists() {
            eprintln!("SKIPPED: {root} is absent");
            return;
        }
        let cases = [("untied", LrSchedule::Linear, 5), ("untied_cosine", LrSchedule::Cosine, 5)];
        for (tag, kind, warmup_steps) in cases.into_iter().chain([("untied_const", LrSchedule::Constant, 0)]) {
            let text = std::fs::read_to_string(format!("{root}/golden/c_train_{tag}.json")).unwrap();
            let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
            let schedule = Schedule { peak: 1e-3, kind, warmup_steps, total_steps: 20 };
            for (step, row) in golden["steps"].as_array().unwrap().iter().enumerate() {
                let expected = row["lr"].as_f64().unwrap();
                assert!((schedule.learning_rate(step) - expected).abs() < 1e-12, "{tag}, step {step}");
            }
        }
    }
}
