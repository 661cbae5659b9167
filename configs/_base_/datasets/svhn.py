# Street View House Numbers, with the augmentation of CIFAR as Section 4.2.2 of
# [AIB] says, flips of digits included.
_base_ = './cifar10.py'

data_root = '{{$MMAIB_DATA:data}}/svhn/'
dataset_type = 'mmaib.SVHN'
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline={{_base_.train_pipeline}}))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        split='test',
        pipeline={{_base_.test_pipeline}}))
test_dataloader = val_dataloader
