# All of CIFAR-10, 50,000 + 10,000 images, as JPEG files in the subset's
# layout: not to the digit the original arrays.
_base_ = './cifar10-subset.py'

data_root = '{{$MMAIB_DATA:data}}/cifar10_jpeg/'
train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
