//! Offline preparation: histories and items in the upstream formats become token shards that training and evaluation
//! map into memory.

pub mod encode;
pub mod order;
pub mod prepare;
pub mod prepared;
pub mod python_literal;
pub mod readers;
pub mod rng;
pub mod sample;
pub mod tasks;
pub mod tokenizer;
