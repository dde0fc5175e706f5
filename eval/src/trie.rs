//! The prefix tree of all SIDs: which token may follow which.

use std::ops::Range;

use anyhow::{bail, ensure, Result};

/// Prefix tree over token sequences. The SIDs may have different lengths, as long as none is a prefix of another.
///
/// Numbering is a function of the set of SIDs alone: node 0 is the root, nodes are numbered level by level, and within
/// a level by the token sequences that lead to them. The children of a node are therefore consecutive, sorted by
/// token id, and the edge with index `e` leads to node `e + 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trie {
    /// Edges of node `n` are `edge_start[n]..edge_start[n + 1]`. `[nodes + 1]`
    edge_start: Vec<usize>,
    /// `[nodes - 1]`
    edge_token: Vec<u32>,
    /// `[nodes]`
    leaf_sid: Vec<Option<usize>>,
    /// Nodes of level `l` are `level_start[l]..level_start[l + 1]`. `[depth + 2]`
    level_start: Vec<usize>,
    uniform_depth: Option<usize>,
}

/// The trie as arrays for a compiled program, in compressed-sparse-row form.
///
/// The children of node `n` are the edges `child_start[n] .. child_start[n] + child_count[n]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrieTables {
    /// First edge of each node; for a leaf, where its edges would be. `[nodes]`
    pub child_start: Vec<i32>,
    /// Number of children of each node, 0 for a leaf. `[nodes]`
    pub child_count: Vec<i32>,
    /// Token id of each edge, ascending within a node. `[nodes - 1]`
    pub child_token: Vec<i32>,
    /// Node that each edge leads to. `[nodes - 1]`
    pub child_node: Vec<i32>,
    /// Largest number of children of any node of level `l` (the root is level 0). `[depth]`
    pub max_children_per_level: Vec<usize>,
    /// Length of the longest SID in tokens.
    pub depth: usize,
    /// Index into the SIDs that the trie was built from, or -1 where the node is not a leaf. `[nodes]`
    pub leaf_sid: Vec<i32>,
}

impl Trie {
    /// Builds the trie of `sids`. Of equal SIDs (several items can share one) the leaf keeps the lowest index.
    ///
    /// # Errors
    /// No SIDs, an empty SID, a SID that is a prefix of another, or a catalogue or token id too large for the 32-bit
    /// tables of a device.
    pub fn build(sids: &[Vec<u32>]) -> Result<Trie> {
        ensure!(!sids.is_empty(), "the catalogue has no SIDs; a trie needs at least one");
        for (index, sid) in sids.iter().enumerate() {
            ensure!(!sid.is_empty(), "SID {index} of the catalogue has no tokens");
            if let Some(token) = sid.iter().find(|&&token| i32::try_from(token).is_err()) {
                bail!("SID {index} of the catalogue holds token id {token}, above the largest a device can index");
            }
        }
        ensure!(i32::try_from(sids.len()).is_ok(), "{} SIDs are more than a device can index", sids.len());

        let mut sorted: Vec<usize> = (0..sids.len()).collect();
        sorted.sort_by(|&a, &b| sids[a].cmp(&sids[b]).then(a.cmp(&b)));
        sorted.dedup_by(|later, kept| sids[*later] == sids[*kept]);

        let first_length = sids[sorted[0]].len();
        let uniform_depth = sorted.iter().all(|&sid| sids[sid].len() == first_length).then_some(first_length);

        let mut trie = Trie {
            edge_start: Vec::new(),
            edge_token: Vec::new(),
            leaf_sid: Vec::new(),
            level_start: vec![0],
            uniform_depth,
        };
        // A node of the current level is the range of `sorted` that shares its first `level` tokens.
        let mut nodes: Vec<Range<usize>> = vec![Range { start: 0, end: sorted.len() }];
        let mut level = 0;
        while !nodes.is_empty() {
            let mut children = Vec::new();
            for node in nodes {
                trie.edge_start.push(trie.edge_token.len());
                // Within the range a SID that ends here sorts before all that go on.
                let first = sorted[node.start];
                if sids[first].len() == level {
                    if node.len() > 1 {
                        let longer = sorted[node.start + 1];
                        bail!(
                            "SID {first} of the catalogue {:?} is a prefix of SID {longer} {:?}; a search could not \
                             tell where it ends",
                            sids[first],
                            sids[longer]
                        );
                    }
                    trie.leaf_sid.push(Some(first));
                    continue;
                }
                trie.leaf_sid.push(None);
                let mut start = node.start;
                while start < node.end {
                    let token = sids[sorted[start]][level];
                    let same = sorted[start..node.end].partition_point(|&sid| sids[sid][level] == token);
                    trie.edge_token.push(token);
                    children.push(start..start + same);
                    start += same;
                }
            }
            trie.level_start.push(trie.leaf_sid.len());
            nodes = children;
            level += 1;
        }
        trie.edge_start.push(trie.edge_token.len());
        ensure!(i32::try_from(trie.node_count()).is_ok(), "the trie has more nodes than a device can index");
        Ok(trie)
    }

    /// Number of nodes, the root included.
    pub fn node_count(&self) -> usize {
        self.leaf_sid.len()
    }

    /// Number of distinct SIDs.
    pub fn leaf_count(&self) -> usize {
        self.leaf_sid.iter().flatten().count()
    }

    /// Length of the longest SID in tokens.
    pub fn depth(&self) -> usize {
        self.level_start.len() - 2
    }

    /// The length of all SIDs in tokens, or `None` when they differ.
    pub fn uniform_depth(&self) -> Option<usize> {
        self.uniform_depth
    }

    /// The nodes at `level` tokens from the root; empty beyond [`Trie::depth`].
    pub fn level(&self, level: usize) -> Range<usize> {
        match self.level_start.get(level..level + 2) {
            Some(bounds) => bounds[0]..bounds[1],
            None => self.node_count()..self.node_count(),
        }
    }

    /// The `(token, node)` pairs below `node`, by ascending token id; none for a leaf.
    ///
    /// # Panics
    /// When `node` is not below [`Trie::node_count`].
    pub fn children(&self, node: usize) -> impl ExactSizeIterator<Item = (u32, usize)> + '_ {
        let first = self.edge_start[node];
        let tokens = &self.edge_token[first..self.edge_start[node + 1]];
        tokens.iter().enumerate().map(move |(offset, &token)| (token, first + offset + 1))
    }

    /// The child of `node` along `token`.
    ///
    /// # Panics
    /// When `node` is not below [`Trie::node_count`].
    pub fn child(&self, node: usize, token: u32) -> Option<usize> {
        let edges = self.edge_start[node]..self.edge_start[node + 1];
        self.edge_token[edges.clone()].binary_search(&token).ok().map(|offset| edges.start + offset + 1)
    }

    /// Index of the SID that ends at `node`, or `None` for an inner node.
    ///
    /// # Panics
    /// When `node` is not below [`Trie::node_count`].
    pub fn sid_at(&self, node: usize) -> Option<usize> {
        self.leaf_sid[node]
    }

    /// Index of the SID with exactly these tokens.
    pub fn find(&self, tokens: &[u32]) -> Option<usize> {
        let leaf = tokens.iter().try_fold(0, |node, &token| self.child(node, token))?;
        self.sid_at(leaf)
    }

    /// The arrays that a compiled search takes as inputs.
    pub fn tables(&self) -> TrieTables {
        // `build` checked that nodes, SIDs and tokens fit.
        let to_i32 = |value: usize| value as i32;
        let child_count: Vec<usize> = self.edge_start.windows(2).map(|bounds| bounds[1] - bounds[0]).collect();
        TrieTables {
            child_start: self.edge_start[..self.node_count()].iter().map(|&start| to_i32(start)).collect(),
            max_children_per_level: (0..self.depth())
                .map(|level| child_count[self.level(level)].iter().copied().max().unwrap_or(0))
                .collect(),
            child_count: child_count.into_iter().map(to_i32).collect(),
            child_token: self.edge_token.iter().map(|&token| token as i32).collect(),
            child_node: (1..self.node_count()).map(to_i32).collect(),
            depth: self.depth(),
            leaf_sid: self.leaf_sid.iter().map(|sid| sid.map_or(-1, to_i32)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_nodes_level_by_level_and_children_by_token() {
        let sids = vec![vec![9, 1, 5], vec![2, 7, 7], vec![2, 3, 8], vec![2, 3, 6], vec![9, 1, 4]];
        let trie = Trie::build(&sids).unwrap();
        assert_eq!(trie.uniform_depth(), Some(3));
        // root | 2 9 | 23 27 91 | 236 238 277 914 915
        assert_eq!(
            trie.tables(),
            TrieTables {
                child_start: vec![0, 2, 4, 5, 7, 8, 10, 10, 10, 10, 10],
                child_count: vec![2, 2, 1, 2, 1, 2, 0, 0, 0, 0, 0],
                child_token: vec![2, 9, 3, 7, 1, 6, 8, 7, 4, 5],
                child_node: vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
                max_children_per_level: vec![2, 2, 2],
                depth: 3,
                leaf_sid: vec![-1, -1, -1, -1, -1, -1, 3, 2, 1, 4, 0],
            }
        );
        assert_eq!((trie.level(0), trie.level(1), trie.level(3), trie.level(4)), (0..1, 1..3, 6..11, 11..11));
        for (index, sid) in sids.iter().enumerate() {
            assert_eq!(trie.find(sid), Some(index));
        }
        assert_eq!((trie.find(&[2, 3]), trie.find(&[2, 3, 7]), trie.find(&[])), (None, None, None));
    }

    #[test]
    fn the_order_of_the_catalogue_changes_only_the_indices() {
        let sids = vec![vec![9, 1], vec![2, 7], vec![2, 3]];
        let reversed: Vec<_> = sids.iter().rev().cloned().collect();
        let (a, b) = (Trie::build(&sids).unwrap().tables(), Trie::build(&reversed).unwrap().tables());
        assert_eq!(b.leaf_sid, a.leaf_sid.iter().map(|&sid| if sid < 0 { -1 } else { 2 - sid }).collect::<Vec<_>>());
        assert_eq!(TrieTables { leaf_sid: Vec::new(), ..a }, TrieTables { leaf_sid: Vec::new(), ..b });
    }

    #[test]
    fn equal_sids_share_a_leaf_with_the_first_index() {
        let trie = Trie::build(&[vec![5, 5], vec![1, 2], vec![5, 5], vec![1, 2]]).unwrap();
        assert_eq!(trie.leaf_count(), 2);
        assert_eq!((trie.find(&[5, 5]), trie.find(&[1, 2])), (Some(0), Some(1)));
    }

    #[test]
    fn sids_may_differ_in_length() {
        let trie = Trie::build(&[vec![1, 2, 3, 4], vec![1, 5], vec![6]]).unwrap();
        assert_eq!((trie.uniform_depth(), trie.depth()), (None, 4));
        assert_eq!(trie.find(&[6]), Some(2));
        let tables = trie.tables();
        assert_eq!(tables.max_children_per_level, [2, 2, 1, 1]);
        assert_eq!(tables.leaf_sid, [-1, -1, 2, -1, 1, -1, 0]);
    }

    #[test]
    fn refuses_catalogues_that_cannot_be_searched() {
        let error = |sids: &[Vec<u32>]| Trie::build(sids).unwrap_err().to_string();
        assert!(error(&[]).contains("no SIDs"));
        assert!(error(&[vec![1], vec![]]).contains("SID 1 of the catalogue has no tokens"));
        let prefix = error(&[vec![1, 2, 3], vec![4], vec![1, 2]]);
        assert!(prefix.contains("SID 2") && prefix.contains("prefix of SID 0"), "{prefix}");
        assert!(error(&[vec![1, 1 << 31]]).contains("token id 2147483648"));
    }
}
