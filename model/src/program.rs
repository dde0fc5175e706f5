//! A program ready to compile: its text, and what goes in and comes out on one replica.

use sft_tensor::DType;

use crate::graph::{Graph, Tensor};

/// An input or output of a [`Program`], as one replica sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// What it is.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl Port {
    /// A port called `name` of the type and shape of `tensor`.
    fn of(name: &str, tensor: Tensor<'_>) -> Self {
        Self { name: name.to_owned(), dtype: tensor.dtype(), shape: tensor.shape() }
    }
}

/// A StableHLO program for all replicas of a mesh.
#[derive(Clone, Debug)]
pub struct Program {
    /// What the program does, in a word.
    pub name: String,
    /// StableHLO text.
    pub text: String,
    /// Number of replicas it is written for.
    pub replicas: usize,
    /// Inputs in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
    /// The first `donated` inputs give their memory to the first `donated` outputs and are gone afterwards.
    pub donated: usize,
}

impl Program {
    /// Prints `graph` with the named `outputs`; the first `donated` inputs become the first `donated` outputs.
    pub fn new(name: &str, graph: &Graph, outputs: &[(&str, Tensor<'_>)], donated: usize) -> Self {
        let results: Vec<_> = outputs.iter().map(|(_, t)| *t).collect();
        let donations: Vec<_> = (0..donated).map(|i| (i, i)).collect();
        Self {
            name: name.to_owned(),
            text: graph.to_stablehlo(name, &results, &donations),
            replicas: graph.mesh().devices(),
            inputs: graph.inputs().iter().map(|(name, t)| Port::of(name, *t)).collect(),
            outputs: outputs.iter().map(|(name, t)| Port::of(name, *t)).collect(),
            donated,
        }
    }
}
