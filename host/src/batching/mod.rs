//! Which examples every device reads in every step, and the arrays that they become.

mod arrays;
mod packing;
mod plan;

pub use arrays::StepCounts;
pub use plan::{Plan, PlanOptions};
