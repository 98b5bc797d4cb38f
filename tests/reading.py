"""What is read while a model trains."""

from burnish import data


class Rows(data.Dataset):
    """Arrays behind the interface of a dataset."""

    def __init__(self, *arrays, workers=1):
        self.arrays, self.workers = arrays, workers

    def __len__(self):
        return len(self.arrays[0])

    def read(self, rows):
        return tuple(array[rows] for array in self.arrays)
