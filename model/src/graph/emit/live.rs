//! What a program needs to compute: operations, and of each loop the carries, slices and stacked results.

use std::collections::{HashMap, HashSet};

use crate::graph::op::Scan;
use crate::graph::{BlockId, Inner, OpId, OpKind, ValueId};

/// The needed parts of a loop, as indices.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LiveScan {
    pub carries: Vec<usize>,
    pub xs: Vec<usize>,
    pub ys: Vec<usize>,
    /// Values from outside that the body needs, in a fixed order.
    pub captures: Vec<ValueId>,
}

#[derive(Default)]
pub(super) struct Live {
    pub ops: HashSet<OpId>,
    pub scans: HashMap<OpId, LiveScan>,
}

impl Live {
    /// Marks what `block` needs for the values in `used`, to which the operands are added.
    pub fn mark(&mut self, inner: &Inner, block: BlockId, used: &mut HashSet<ValueId>) {
        for &id in inner.blocks[block].ops.iter().rev() {
            let op = &inner.ops[id];
            if !op.results.iter().any(|r| used.contains(r)) {
                continue;
            }
            self.ops.insert(id);
            let scan = match &op.kind {
                OpKind::Scan(scan) => scan,
                kind => {
                    let unused = usize::from(matches!(kind, OpKind::Kept));
                    used.extend(&op.operands[unused..]);
                    continue;
                }
            };
            let live = self.mark_scan(inner, scan, &op.results, used);
            used.extend(live.carries.iter().map(|&i| op.operands[i]));
            used.extend(live.xs.iter().map(|&i| op.operands[scan.carries + i]));
            used.extend(&live.captures);
            self.scans.insert(id, live);
        }
    }

    fn mark_scan(&mut self, inner: &Inner, scan: &Scan, results: &[ValueId], used: &HashSet<ValueId>) -> LiveScan {
        let body = &inner.blocks[scan.body];
        let mut live: Vec<usize> = (0..results.len()).filter(|&i| used.contains(&results[i])).collect();
        let inside = loop {
            let mut inside: HashSet<ValueId> = live.iter().map(|&i| body.results[i]).collect();
            self.mark(inner, scan.body, &mut inside);
            // a carry that the body reads must be kept up to date
            let read = |i: &usize| inside.contains(&body.params[*i]) && !live.contains(i);
            let new: Vec<usize> = (0..scan.carries).filter(read).collect();
            if new.is_empty() {
                break inside;
            }
            live.extend(new);
        };
        live.sort_unstable();
        let (carries, ys) = live.into_iter().partition::<Vec<_>, _>(|&i| i < scan.carries);
        let xs = body.params[scan.carries..].iter().enumerate().filter(|(_, p)| inside.contains(p));
        let captures = inner.captures(scan.body).into_iter().filter(|v| inside.contains(v));
        LiveScan {
            carries,
            xs: xs.map(|(i, _)| i).collect(),
            ys: ys.into_iter().map(|i| i - scan.carries).collect(),
            captures: captures.collect(),
        }
    }
}
