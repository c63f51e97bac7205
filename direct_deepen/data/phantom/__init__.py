"""Brain phantom: multi-coil k-space of synthetic heads, all of them random deformations of the MNI152 anatomy.

The ICBM 152 average brain [1]_, which nilearn ships in its wheel, gives the folded cortex, the deep nuclei and the
ventricles. Subarachnoid fluid, the two tables of the skull with marrow between them, scalp fat and skin are added
around it by distance from the brain's outline. Each volume draws its own slab of slices, pose, deformation, width of
sulci, tissue contrast (like that of a T2-weighted spin echo), lesions, texture, bias field, image phase and coils. The
phantom stands in for data and does not replace them: every head has the folds of one anatomy.

Every random number but the k-space noise is drawn before the matrix size matters, so equal generators draw the same
head at every size.

References
----------
.. [1] V. Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 54, 2011.
"""

from direct_deepen.data.phantom.volume import SMALLEST_SIZE, PhantomVolume, acquire, brain_volume, write_phantoms

__all__ = ["SMALLEST_SIZE", "PhantomVolume", "acquire", "brain_volume", "write_phantoms"]
