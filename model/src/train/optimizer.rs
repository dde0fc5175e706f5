use sft_tensor::DType;

use crate::graph::Tensor;
use crate::params::Param;

/// Names of the moments that optimizers keep, in the order of [`Optimizer::slots`].
pub const SLOT_NAMES: [&str; 2] = ["mu", "nu"];

/// How a gradient becomes an update. Every rule is elementwise, so a shard is updated where it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW` computes it.
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
        /// Weight decay.
        decay: Decay,
    },
    /// Lion (Chen et al. 2023): the sign of an interpolated momentum.
    Lion {
        /// Interpolation of the update.
        beta1: f64,
        /// Decay of the momentum.
        beta2: f64,
        /// Weight decay.
        decay: Decay,
    },
}

/// Weight decay and what it applies to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decay {
    /// Factor of `learning rate × parameter`.
    pub rate: f64,
    /// Whether biases and norm weights decay, too (the JAX plugin's do, HF's do not).
    pub vectors: bool,
}

impl Decay {
    fn rate_for(&self, param: &Param) -> f64 {
        if self.vectors || param.is_matrix() {
            self.rate
        } else {
            0.0
        }
    }
}

/// Numbers that change from step to step, f32 scalars.
#[derive(Clone, Copy)]
pub(super) struct Hyper<'g> {
    pub learning_rate: Tensor<'g>,
    /// `1 − beta1^t` at step `t`, from 1.
    pub correction1: Tensor<'g>,
    /// `√(1 − beta2^t)`.
    pub correction2_root: Tensor<'g>,
}

impl Optimizer {
    /// Number of moments kept per parameter, each in the parameter's shape.
    pub fn slots(&self) -> usize {
        match self {
            Self::AdamW { .. } => 2,
            Self::Lion { .. } => 1,
        }
    }

    /// The program's input `hyper` for optimizer step `step` (from 1): learning rate, `1 − beta1^step` and
    /// `√(1 − beta2^step)`.
    pub fn hyper(&self, step: usize, learning_rate: f64) -> [f32; 3] {
        let (Self::AdamW { beta1, beta2, .. } | Self::Lion { beta1, beta2, .. }) = *self;
        let correction = |beta: f64| 1.0 - beta.powi(step as i32);
        [learning_rate as f32, correction(beta1) as f32, correction(beta2).sqrt() as f32]
    }

    /// The parameter (f32) and the moments (in their own type) after a step along `gradient` (f32).
    pub(super) fn update<'g>(
        &self,
        param: &Param,
        value: Tensor<'g>,
        gradient: Tensor<'g>,
        slots: &[Tensor<'g>],
        hyper: &Hyper<'g>,
    ) -> (Tensor<'g>, Vec<Tensor<'g>>) {
        let rate = hyper.learning_rate;
        let blend = |old: Tensor<'g>, new: Tensor<'g>, beta: f64| old * beta + new * (1.0 - beta);
        let wide = |i: usize| slots[i].convert(DType::F32);
        let decayed = |decay: &Decay| match decay.rate_for(param) {
            0.0 => value,
            weight_decay => value * (rate * -weight_decay + 1.0),
        };
        let (value, moments) = match self {
            Self::AdamW { beta1, beta2, eps, decay } => {
                let mu = blend(wide(0), gradient, *beta1);
                let nu = blend(wide(1), gradient * gradient, *beta2);
                let denominator = nu.sqrt() / hyper.correction2_root + *eps;
                let step = mu / denominator * (rate / hyper.correction1);
                (decayed(decay) - step, vec![mu, nu])
            }
            Self::Lion { beta1, beta2, decay } => {
                let direction = blend(wide(0), gradient, *beta1).sign();
                (decayed(decay) - direction * rate, vec![blend(wide(0), gradient, *beta2)])
            }
        };
        (value, moments.into_iter().zip(slots).map(|(m, slot)| m.convert(slot.dtype())).collect())
    }
}
