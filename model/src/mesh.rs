//! The device mesh: replicas arranged along the axes `dp`, `fsdp` and `tp`.

use std::fmt;

/// An axis of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Data parallel: parameters are replicated, gradients all-reduced.
    Dp,
    /// Fully sharded data parallel: parameters are sharded, gathered for use, gradients reduce-scattered.
    Fsdp,
    /// Tensor parallel: heads and MLP columns are split.
    Tp,
}

/// Sizes of the mesh axes. Replica `((dp * fsdp_size) + fsdp) * tp_size + tp` sits at `(dp, fsdp, tp)`, so `tp` peers
/// are neighbours and `dp` peers are farthest apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Size of the data-parallel axis.
    pub dp: usize,
    /// Size of the fully-sharded axis.
    pub fsdp: usize,
    /// Size of the tensor-parallel axis.
    pub tp: usize,
}

/// A mesh shape that cannot be read or does not fit the devices.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MeshError {
    /// The text follows neither grammar.
    #[error(
        "jax.mesh_shape {0:?} is not a mesh shape: use \"auto\", three sizes \"dp,fsdp,tp\" with at most one -1 \
         (\"1,-1,1\"), or names (\"dp:1,fsdp:-1,tp:1\")"
    )]
    Syntax(String),
    /// The sizes do not multiply to the number of devices.
    #[error(
        "jax.mesh_shape {text:?} does not fit {devices} devices: {known} does not {verb} {devices}; \
         choose sizes whose product is {devices}"
    )]
    Devices {
        /// As configured.
        text: String,
        /// Devices of all hosts.
        devices: usize,
        /// Product of the sizes given.
        known: usize,
        /// `divide` when a size is inferred, `equal` otherwise.
        verb: &'static str,
    },
}

impl Mesh {
    /// A mesh of one device.
    pub const SINGLE: Mesh = Mesh { dp: 1, fsdp: 1, tp: 1 };

    /// Reads the reference's `mesh_shape` grammar: `auto` (or empty), `d,f,t` or `dp:d,fsdp:f,tp:t`, one size may be
    /// −1; a leading `!` is accepted (device order is always the plain one here).
    ///
    /// `auto` is `1,-1,1` on one host and `dp = hosts, fsdp = devices per host` on several, so that FSDP's collectives
    /// stay within a host.
    pub fn parse(text: &str, hosts: usize, devices_per_host: usize) -> Result<Mesh, MeshError> {
        let devices = hosts * devices_per_host;
        let shape = text.trim().trim_start_matches('!').trim();
        if shape.is_empty() || shape == "auto" {
            return Ok(Mesh { dp: hosts, fsdp: devices_per_host, tp: 1 });
        }
        let syntax = || MeshError::Syntax(text.to_owned());
        let mut sizes: [Option<i64>; 3] = [None; 3];
        for (i, part) in shape.split(',').enumerate() {
            let (slot, size) = match part.split_once(':') {
                Some((name, size)) => {
                    (["dp", "fsdp", "tp"].iter().position(|n| *n == name.trim()).ok_or_else(syntax)?, size)
                }
                None => (i, part),
            };
            let size = size.trim().parse().map_err(|_| syntax())?;
            if slot >= 3 || sizes[slot].replace(size).is_some() || !(size == -1 || size >= 1) {
                return Err(syntax());
            }
        }
        let [Some(dp), Some(fsdp), Some(tp)] = sizes else { return Err(syntax()) };
        let sizes = [dp, fsdp, tp];
        let free = sizes.iter().filter(|&&s| s == -1).count();
        let known: usize = sizes.iter().filter(|&&s| s != -1).map(|&s| s as usize).product();
        let fits = match free {
            0 => known == devices,
            1 => devices % known == 0,
            _ => return Err(syntax()),
        };
        if !fits {
            let verb = if free == 1 { "divide" } else { "equal" };
            return Err(MeshError::Devices { text: text.to_owned(), devices, known, verb });
        }
        let size = |s: i64| if s == -1 { devices / known } else { s as usize };
        Ok(Mesh { dp: size(dp), fsdp: size(fsdp), tp: size(tp) })
    }

    /// Number of replicas: devices of all hosts.
    pub fn devices(&self) -> usize {
        self.dp * self.fsdp * self.tp
    }

    /// Number of replicas that see different examples: `dp × fsdp`.
    pub fn batch_shards(&self) -> usize {
        self.dp * self.fsdp
    }

    /// Size of one axis.
    pub fn size(&self, axis: Axis) -> usize {
        match axis {
            Axis::Dp => self.dp,
            Axis::Fsdp => self.fsdp,
            Axis::Tp => self.tp,
        }
    }

    /// Coordinate of `replica` on `axis`.
    pub fn coordinate(&self, replica: usize, axis: Axis) -> usize {
        match axis {
            Axis::Dp => replica / (self.fsdp * self.tp),
            Axis::Fsdp => replica / self.tp % self.fsdp,
            Axis::Tp => replica % self.tp,
        }
    }

    /// Which share of the batch `replica` works on: `0..batch_shards()`.
    pub fn batch_shard(&self, replica: usize) -> usize {
        replica / self.tp
    }

    /// The groups of replicas that differ in nothing but `axes`, each in ascending order; a collective over `axes`
    /// runs within each.
    pub fn groups(&self, axes: &[Axis]) -> Vec<Vec<usize>> {
        let all = [Axis::Dp, Axis::Fsdp, Axis::Tp];
        let key = |r: usize| all.map(|a| if axes.contains(&a) { 0 } else { self.coordinate(r, a) });
        let mut groups: Vec<([usize; 3], Vec<usize>)> = Vec::new();
        for replica in 0..self.devices() {
            match groups.iter_mut().find(|(k, _)| *k == key(replica)) {
                Some((_, group)) => group.push(replica),
                None => groups.push((key(replica), vec![replica])),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dp:{},fsdp:{},tp:{}", self.dp, self.fsdp, self.tp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_grammar_is_read() {
        let mesh = |dp, fsdp, tp| Ok(Mesh { dp, fsdp, tp });
        assert_eq!(Mesh::parse("auto", 1, 4), mesh(1, 4, 1));
        assert_eq!(Mesh::parse("auto", 2, 4), mesh(2, 4, 1));
        assert_eq!(Mesh::parse("", 1, 1), mesh(1, 1, 1));
        assert_eq!(Mesh::parse("1,-1,1", 2, 4), mesh(1, 8, 1));
        assert_eq!(Mesh::parse("!2, 2 ,2", 2, 4), mesh(2, 2, 2));
        assert_eq!(Mesh::parse("tp:2,dp:1,fsdp:-1", 2, 4), mesh(1, 4, 2));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for text in ["1,1", "1,-1,-1", "0,1,1", "a,b,c", "dp:1,dp:2,tp:1", "1,1,1,1", "dp:1,fsdp:2"] {
            assert!(matches!(Mesh::parse(text, 1, 4), Err(MeshError::Syntax(_))), "{text}");
        }
        let error = Mesh::parse("1,3,1", 1, 4).unwrap_err().to_string();
        assert!(error.contains("1,3,1") && error.contains("4 devices"), "{error}");
        assert!(Mesh::parse("3,-1,1", 1, 4).is_err());
    }

    #[test]
    fn groups_differ_in_the_named_axes_only() {
        let mesh = Mesh { dp: 2, fsdp: 2, tp: 2 };
        assert_eq!(mesh.groups(&[Axis::Tp]), [[0, 1], [2, 3], [4, 5], [6, 7]]);
        assert_eq!(mesh.groups(&[Axis::Fsdp]), [[0, 2], [1, 3], [4, 6], [5, 7]]);
        assert_eq!(mesh.groups(&[Axis::Dp, Axis::Fsdp]), [[0, 2, 4, 6], [1, 3, 5, 7]]);
        assert_eq!(mesh.groups(&[]).len(), 8);
    }
}
