"""Layers: functions with parameters. Channels stand last; axis 0 is the batch.

Your own layer derives from `Layer` and defines `call`; see there for an example.
"""

from . import (
    activation,
    attention,
    convolution,
    dense,
    embedding,
    merge,
    normalization,
    pooling,
    recurrent,
    regularization,
    resizing,
    shape,
    transformer,
    transposed,
    wrappers,
)
from .activation import *  # noqa: F403
from .attention import *  # noqa: F403
from .base import Layer as Layer
from .convolution import *  # noqa: F403
from .dense import *  # noqa: F403
from .embedding import *  # noqa: F403
from .merge import *  # noqa: F403
from .normalization import *  # noqa: F403
from .pooling import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .regularization import *  # noqa: F403
from .resizing import *  # noqa: F403
from .shape import *  # noqa: F403
from .transformer import *  # noqa: F403
from .transposed import *  # noqa: F403
from .wrappers import *  # noqa: F403

__all__ = ["Layer"]
__all__ += activation.__all__
__all__ += attention.__all__
__all__ += convolution.__all__
__all__ += dense.__all__
__all__ += embedding.__all__
__all__ += merge.__all__
__all__ += normalization.__all__
__all__ += pooling.__all__
__all__ += recurrent.__all__
__all__ += regularization.__all__
__all__ += resizing.__all__
__all__ += shape.__all__
__all__ += transformer.__all__
__all__ += transposed.__all__
__all__ += wrappers.__all__
