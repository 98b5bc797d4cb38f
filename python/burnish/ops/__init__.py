"""Operations on values: the same functions describe models, losses and metrics, and compute eagerly.

Each takes symbols of a model, values made from `bn.Input`, `bn.Tensor`, arrays and Python numbers; arrays alone give a
`bn.Tensor`.
"""

from . import (
    activations,
    arithmetic,
    contraction,
    elementwise,
    indexing,
    neural,
    recurrent,
    reduction,
    sequences,
    shaping,
    trigonometry,
)
from .activations import *  # noqa: F403
from .arithmetic import *  # noqa: F403
from .contraction import *  # noqa: F403
from .elementwise import *  # noqa: F403
from .indexing import *  # noqa: F403
from .neural import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .reduction import *  # noqa: F403
from .sequences import *  # noqa: F403
from .shaping import *  # noqa: F403
from .trigonometry import *  # noqa: F403

__all__: list[str] = []
__all__ += activations.__all__
__all__ += arithmetic.__all__
__all__ += contraction.__all__
__all__ += elementwise.__all__
__all__ += indexing.__all__
__all__ += neural.__all__
__all__ += recurrent.__all__
__all__ += reduction.__all__
__all__ += sequences.__all__
__all__ += shaping.__all__
__all__ += trigonometry.__all__
